// From a masked row of similarities to its row of coefficients G = dL/dS, in place.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "row_scan.h"

namespace alc {

enum class Kind : int64_t { kNone = 0, kSoftmax = 1, kDecoupled = 2, kSigmoid = 3 };

// What a row's coefficients are.
template <typename T>
struct SlopeOptions : Formula<T> {
  SlopeOptions() = default;
  SlopeOptions(const Formula<T>& formula, Kind kind, bool want_sums)
      : Formula<T>(formula), kind(kind), want_sums(want_sums) {}

  Kind kind = Kind::kNone;
  T positive_margin_scale = 0, negative_margin_scale = 0;
  bool want_sums = false;
};

// A row's own numbers.
template <typename T>
struct RowSlope {
  T row_scale = 0;
  T log_sum_exp = 0;
  int64_t num_positives = 0;
  T negative_scale = 1;
  bool complete = false;  // log_sum_exp is that of the similarities at hand, all of the row's
};

template <typename T>
double logit_of(const SlopeOptions<T>& options, const Pair<T>& pair) {
  T logit = pair.score * options.slope;
  if (options.offset != nullptr) logit += options.offset[pair.column];
  return logit;
}

// The derivative of the row's loss by a positive's logit.
template <typename T>
double positive_slope(
    const SlopeOptions<T>& options, const RowSlope<T>& row, const Pair<T>& pair) {
  if (row.row_scale == 0 || options.kind == Kind::kNone) return 0;
  if (options.kind == Kind::kSigmoid)
    return -row.row_scale * sigmoid(-static_cast<double>(pair.score * options.scale + options.bias));
  const double gap = static_cast<double>(logit_of(options, pair)) - row.log_sum_exp;
  const double share = 1.0 / static_cast<double>(row.num_positives);
  if (options.kind == Kind::kSoftmax) return row.row_scale * (std::exp(gap) - share);
  return -row.row_scale * share * sigmoid(-gap);
}

// `RowSlope::negative_scale` of a complete row: the positives' mean of sigmoid(lse - z).
template <typename T>
T decoupled_scale(
    const SlopeOptions<T>& options, const RowSlope<T>& row, const std::vector<Pair<T>>& positives) {
  double sum = 0;
  for (const Pair<T>& pair : positives)
    sum += sigmoid(static_cast<double>(row.log_sum_exp) - logit_of(options, pair));
  return static_cast<T>(sum / std::max<int64_t>(1, row.num_positives));
}

// The columns' softmax, whose coefficients are added to the rows' (`GradientRequest.columns`).
template <typename T>
struct ColumnSlopes {
  SlopeOptions<T> options;
  const T *row_scale, *log_sum_exp, *negative_scale;  // (M)
  const int64_t* num_positives;
  std::vector<T> factor, bound;  // of exp(s * slope - bound); 0 and +inf for a column left out

  // slope: the inverse temperature.
  ColumnSlopes(const SlopeRequest<T>& request, T slope, int64_t columns, bool want_sums)
      : row_scale(request.row_scale), log_sum_exp(request.log_sum_exp),
        negative_scale(request.negative_scale), num_positives(request.num_positives),
        factor(columns), bound(columns) {
    options.kind = static_cast<Kind>(request.kind);
    options.slope = slope;
    for (int64_t j = 0; j < columns; ++j) {
      T c = row_scale[j];
      if (options.kind == Kind::kDecoupled) c *= negative_scale[j];
      bound[j] = c == 0 ? std::numeric_limits<T>::infinity() : log_sum_exp[j];
      factor[j] = want_sums ? c : c * options.slope;
    }
  }

  double positive_slope(const Pair<T>& pair) const {
    const int64_t j = pair.column;
    const RowSlope<T> own{row_scale[j], log_sum_exp[j], num_positives[j]};
    return alc::positive_slope(options, own, pair);
  }
};

// The same for a softmax whose row is complete: p - 1/P from the sum of the negatives' p, so
// that no two close numbers are subtracted where one positive takes nearly all.
template <typename T>
class SoftmaxPositives {
 public:
  SoftmaxPositives(const SlopeOptions<T>& options, const RowSlope<T>& row)
      : options_(options), row_(row) {}

  void begin(const std::vector<Pair<T>>& positives, double negatives) {
    negatives_ = negatives;
    for (const Pair<T>& pair : positives) positives_ += share(pair);
  }
  double slope(const Pair<T>& pair) const {
    const auto count = static_cast<double>(row_.num_positives);
    const double missing = negatives_ + (positives_ - count * share(pair));
    return -row_.row_scale * missing / (count * (negatives_ + positives_));
  }

 private:
  double share(const Pair<T>& pair) const {
    return std::exp(static_cast<double>(logit_of(options_, pair)) - row_.log_sum_exp);
  }
  const SlopeOptions<T>& options_;
  const RowSlope<T>& row_;
  double negatives_ = 0, positives_ = 0;
};

// s: columns [start, start + n) with -inf where not negative; positives: those taken out of them.
// more: the columns' own part, or null. spare: room for 2n elements where there are margins or
// columns. Adds to sums where wanted.
template <typename T>
void write_slopes(
    const SlopeOptions<T>& options, const RowSlope<T>& row, const ColumnSlopes<T>* more, T* s,
    int64_t start, int64_t n, const std::vector<Pair<T>>& positives, T* spare,
    GradientSums& sums) {
  const Kernels<T>& simd = kernels<T>();
  const T inner = options.kind == Kind::kSigmoid ? options.scale : options.slope;
  const bool margins =
      options.has_negative_margin && simd.largest(s, n) >= options.negative_margin;
  if (more != nullptr) {
    simd.column_slope(
        s, spare, n, options.slope, more->bound.data() + start, more->factor.data() + start,
        options.want_sums ? &sums : nullptr);
    if (options.want_sums) simd.scale(spare, spare, inner, n);
  }
  if (margins) {
    T* out = more == nullptr ? spare : spare + n;
    simd.margin_slope(s, out, n, options.negative_margin, options.negative_margin_scale);
    if (more != nullptr) simd.add_scaled(spare, out, T(1), n);
  }
  const bool base = options.kind != Kind::kNone && row.row_scale != 0;
  const bool exact = base && options.kind == Kind::kSoftmax && row.complete;
  GradientSums own;
  if (!base) {
    std::fill(s, s + n, T(0));
  } else {
    GradientSums* wanted = options.want_sums || exact ? &own : nullptr;
    T c = row.row_scale;
    if (options.kind == Kind::kDecoupled) c *= row.negative_scale;
    if (wanted == nullptr) c *= inner;
    if (options.kind == Kind::kSigmoid) {
      simd.sigmoid_slope(s, n, options.scale, options.bias, c, wanted);
    } else {
      const T* offset = options.offset == nullptr ? nullptr : options.offset + start;
      simd.softmax_slope(s, n, options.slope, offset, row.log_sum_exp, c, wanted);
    }
    if (wanted != nullptr) simd.scale(s, s, inner, n);
    sums.weighted += own.weighted;
    sums.plain += own.plain;
  }
  if (margins || more != nullptr) simd.add_scaled(s, spare, T(1), n);
  if (positives.empty()) return;
  SoftmaxPositives<T> softmax(options, row);
  if (exact) softmax.begin(positives, own.plain / row.row_scale);
  for (const Pair<T>& pair : positives) {
    double g = exact ? softmax.slope(pair) : positive_slope(options, row, pair);
    if (more != nullptr) g += more->positive_slope(pair);
    if (options.want_sums) {
      sums.weighted += g * pair.score;
      sums.plain += g;
    }
    double value = g * inner;
    if (options.has_positive_margin && pair.score <= options.positive_margin)
      value -= options.positive_margin_scale;
    s[pair.column - start] = static_cast<T>(value);
  }
}

}  // namespace alc
