// Vector loops, compiled once per instruction set and chosen at run time.
#pragma once

#include <cstdint>

#include "portable.h"

namespace alc {

// Sums over one row of coefficients, for the gradients of temperature, scale and bias.
struct GradientSums {
  double weighted = 0;  // sum of g s
  double plain = 0;     // sum of g
};

// A column that does not count holds -inf in every `s` below; it contributes nothing.
template <typename T>
struct Kernels {
  const char* name;

  // Overwrites s > limit - slack * columns[j] with -inf (columns null: s > limit); how many.
  int64_t (*guard)(T* s, int64_t n, T limit, T slack, const T* columns);
  // Largest element, -inf for none; NaN is ignored.
  T (*largest)(const T* s, int64_t n);
  // First index >= from, a multiple of 32, whose 32 elements hold one > threshold; n for none.
  int64_t (*next_above)(const T* s, int64_t n, int64_t from, T threshold);
  // Number of elements >= margin; adds s - margin to *sum.
  int64_t (*over)(const T* s, int64_t n, T margin, double* sum);
  // Largest s * slope + offset (offset may be null) over elements that count.
  T (*largest_logit)(const T* s, int64_t n, T slope, const T* offset);
  // Sum of exp(s * slope + offset - bound).
  double (*sum_exp)(const T* s, int64_t n, T slope, const T* offset, T bound);
  // Sum of softplus(scale * s + bias).
  double (*sum_softplus)(const T* s, int64_t n, T scale, T bias);

  // Of the columns, one row at a time: top[j] <- max(top[j], s[j] * slope), and
  // sum[j] += exp(s[j] * slope - top[j]).
  void (*column_largest)(const T* s, int64_t n, T slope, T* top);
  void (*column_sum_exp)(const T* s, int64_t n, T slope, const T* top, T* sum);

  // s <- c exp(s * slope + offset - lse). sums may be null.
  void (*softmax_slope)(
      T* s, int64_t n, T slope, const T* offset, T lse, T c, GradientSums* sums);
  // out <- c[j] exp(s[j] * slope - lse[j]): the columns' part of a row, before the slopes above.
  void (*column_slope)(
      const T* s, T* out, int64_t n, T slope, const T* lse, const T* c, GradientSums* sums);
  // s <- c sigmoid(scale s + bias).
  void (*sigmoid_slope)(T* s, int64_t n, T scale, T bias, T c, GradientSums* sums);
  // out[j] <- s[j] >= margin ? value : 0; the margins' part, taken before the slopes above.
  void (*margin_slope)(const T* s, T* out, int64_t n, T margin, T value);
  // y += c x
  void (*add_scaled)(T* y, const T* x, T c, int64_t n);
  T (*dot)(const T* a, const T* b, int64_t n);

  // weight . [a; b; |a-b|; a*b], weight (4n)
  T (*pair_logit)(const T* a, const T* b, const T* weight, int64_t n);
  // y += g d logit / d a, and d b
  void (*pair_query)(T* y, const T* a, const T* b, const T* weight, T g, int64_t n);
  void (*pair_label)(T* y, const T* a, const T* b, const T* weight, T g, int64_t n);
  // sums (4n) += g [a; b; |a-b|; a*b]
  void (*pair_weight)(T* sums, const T* a, const T* b, T g, int64_t n);

  // Largest |x|; *finite is cleared when an element is not finite.
  T (*largest_magnitude)(const T* x, int64_t n, bool* finite);
  // y <- c x
  void (*scale)(T* y, const T* x, T c, int64_t n);
  // y <- c (g - x along)
  void (*reject)(T* y, const T* g, const T* x, T along, T c, int64_t n);

  // y[j] <- c f[j] x[j]
  void (*scale_each)(T* y, const T* x, const T* f, T c, int64_t n);
  // sum[j] += c g[j] x[j], then g[j] <- e f[j] g[j]; returns the sum of g f x.
  double (*weigh_slopes)(T* g, const T* x, const T* f, T c, T e, T* sum, int64_t n);
};

// The best set that this processor has.
template <typename T>
const Kernels<T>& kernels();

// Half precision to float and back (round to nearest even).
struct HalfKernels {
  void (*from_half)(const uint16_t* x, float* y, int64_t n);
  void (*to_half)(const float* x, uint16_t* y, int64_t n);
};
const HalfKernels& half_kernels();

}  // namespace alc
