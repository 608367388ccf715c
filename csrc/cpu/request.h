// The requests of the C interface, as alc_kernels/backends/native/request.py fills them in; what they
// ask for is documented in alc_kernels/engine/interface.py. T is the accumulation type. B queries,
// M labels, W prefix widths; a problem of whole rows has one. Null: absent, or not asked for.
//
// Every field takes 8 bytes. Python knows the layout by the order of the fields, and compares the
// sizes at load.
#pragma once

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "element.h"

namespace alc {

// The columns of row i are column[start[i]] .. column[stop[i] - 1], ascending. start null: row i has
// column[i] alone, and column null: i; without entries: no pairs.
struct Pairs {
  const int64_t *start, *stop, *column;
  int64_t entries;  // of `column`
};

template <typename T>
struct Problem {
  Dtype dtype;  // of queries and labels; first, so that T can be told from it
  const void *queries, *labels;  // (B, d), (M, d), contiguous
  int64_t rows, columns, dim;
  Pairs positives, exclude;
  int64_t count;          // W
  const int64_t* widths;  // ascending; null: of whole rows
  const T *query_scale, *label_scale;           // (W, B), (W, M)
  const T *guard, *row_slack, *column_slack;    // (W, B), (W, B), (W, M)
};

// Numbers that the walk and the gradient have in common.
template <typename T>
struct FormulaRequest {
  const T *inverse_temperature, *label_offset, *scale, *bias;  // one, (M), one, one
  double positive_margin, negative_margin;                     // NaN: none
};

// Where a gradient goes.
template <typename T>
struct Targets {
  T *grad_queries, *grad_labels;  // (B, d), (M, d): added to, or where `fresh` written
  int64_t fresh;
  T *weighted_sum, *plain_sum;    // (W, B): written
  // Only by rows before their norms: weights of the widths' losses (W), and sums of G s by queries
  // (W, B) and by labels (W, M), written.
  const double* weights;
  T *query_dots, *label_dots;
};

// Screening: products of rows rounded to 8 bits decide which pairs are computed in full precision.
struct ScreenRequest {
  int64_t always;      // also where it is not expected to save time
  double bound_scale;  // 1; less makes the bound wrong, for tests
  void* packed;        // the labels as pack_labels leaves them; null: packed by the walk
  // Written: rows that were screened, those of them whose later columns were not, pairs that were
  // scored again.
  int64_t screened, given_up, scored;
  int64_t run;  // of the product's sums, see screening/rounding.h; 0: not known
};

template <typename T>
struct WalkRequest {
  FormulaRequest<T> formula;
  int64_t top_k, softmax;
  // Results: a plane (B) per width.
  int64_t *num_positives, *num_negatives;
  T* top_score;        // (W, B, k)
  int64_t* top_index;  // (W, B, k)
  T* positive_score;
  int64_t* positive_index;
  T *log_sum_exp, *positive_logit_sum, *sigmoid_sum;
  T* positive_margin_sum;
  int64_t* positive_margin_count;
  T* negative_margin_sum;
  int64_t* negative_margin_count;
  T* margin_sums;          // (W, 2)
  int64_t* margin_counts;  // (W, 2)
  // Active pairs, while there are at most so many: those of the positives, then of the negatives.
  int64_t active_capacity;
  int64_t *active_crow, *active_count;  // (W, 2, B + 1), (W, 2): -1 where there are too many
  int32_t* active_col;                  // (W, capacity)
  // The columns' statistics (M), and all similarities (B, M).
  int64_t columns_softmax;
  int64_t *column_positives, *column_negatives;
  T *column_log_sum_exp, *column_logit_sum, *similarities;
  // The gradient of the softmax or sigmoid loss.
  const T* row_scale;  // (B)
  Targets<T> targets;
  ScreenRequest* screening;  // null: every pair is computed in full precision
};

// A softmax or sigmoid kind and the numbers of its rows: a plane (B) per width, or (M) of columns.
template <typename T>
struct SlopeRequest {
  int64_t kind;
  const T *row_scale, *log_sum_exp, *negative_scale;
  const int64_t* num_positives;  // (B) for every width
};

template <typename T>
struct DenseRequest {
  FormulaRequest<T> formula;
  SlopeRequest<T> rows, columns;
  const T *positive_margin_scale, *negative_margin_scale;  // (W)
  T* similarities;                                         // (B, M), overwritten
  Targets<T> targets;
};

// The same, read: what rows are computed with.
template <typename T>
struct Formula {
  Formula() = default;
  explicit Formula(const FormulaRequest<T>& request)
      : offset(request.label_offset),
        has_positive_margin(!std::isnan(request.positive_margin)),
        has_negative_margin(!std::isnan(request.negative_margin)),
        positive_margin(static_cast<T>(request.positive_margin)),
        negative_margin(static_cast<T>(request.negative_margin)) {
    if (request.inverse_temperature != nullptr) slope = *request.inverse_temperature;
    if (request.scale != nullptr) scale = *request.scale;
    if (request.bias != nullptr) bias = *request.bias;
  }

  T slope = 1;  // inverse temperature
  const T* offset = nullptr;
  T scale = 1, bias = 0;
  bool has_positive_margin = false, has_negative_margin = false;
  T positive_margin = 0, negative_margin = 0;
};

// A request that cannot be served: a ValueError in Python.
inline void expect(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

}  // namespace alc
