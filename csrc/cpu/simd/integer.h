// Products of rows rounded to 8-bit integers, and what screening by them needs, per instruction set.
#pragma once

#include <cstdint>

#include "portable.h"

namespace alc {

constexpr int64_t kPanel = 64;  // columns that are multiplied at a time

// A row x as integers in [-127, 127]: x = scale * integers + residual. The norms are rounded up.
struct Rounded {
  float scale;
  float residual, norm, rounded_norm;  // |x - scale * integers|, |x|, scale * |integers|
  int32_t sum;                         // of the integers
};

// Of the rows of a block, each an array: a column may hold a pair with s > tau only where
// s_hat > tau - reach * norm(column) - rounded * residual(column).
struct RowBounds {
  const float *tau, *reach, *rounded, *inverse_scale;
};

struct IntegerKernels {
  const char* name;
  // Coordinates of a row that lie together, a group of 4 bytes; and columns whose groups do: the
  // packed labels are [panel][kPanel / width][group][width][unit].
  int64_t unit, width;
  bool bytes;    // labels as bytes with 128 added, queries as bytes; else both as int16
  int64_t rows;  // a multiple of which a block has

  // Rows of `groups` groups against a panel. out[i, j] <- scale[j] * (start[i] + integer product);
  // above[i]: bit j is set where that exceeds threshold[i].
  void (*panel)(
      const void* queries, int64_t n, const void* labels, int64_t groups, const int32_t* start,
      const float* scale, const float* threshold, float* out, uint64_t* above);
  // threshold[i] for a panel with at most these norms and residuals.
  void (*thresholds)(RowBounds rows, int64_t n, float norm, float residual, float* threshold);
  // The integers of a row, whose largest element is 127 `scale`; sums of squares: residual, row,
  // integers.
  int32_t (*round)(const float* x, int64_t n, float scale, int8_t* out, double* squares);
  // x . y[c] for 8 labels, summed as a matrix product sums: fused, in order, in runs that are added.
  void (*score)(const float* x, const float* const* y, int64_t n, int64_t run, float* out);
  // The same as fast as it goes.
  void (*near)(const float* x, const float* const* y, int64_t n, float* out);
};

// The best set that this processor has.
const IntegerKernels& integer_kernels();

}  // namespace alc
