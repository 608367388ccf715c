// From a masked row of similarities to its row of coefficients G = dL/dS, in place.
#pragma once

#include <vector>

#include "row_scan.h"

namespace alc {

enum class Kind : int64_t { kNone = 0, kSoftmax = 1, kDecoupled = 2, kSigmoid = 3 };

// See `GradientRequest` in alc_kernels/backends/interface.py.
template <typename T>
struct SlopeOptions {
  Kind kind = Kind::kNone;
  T slope = 1;  // inverse temperature
  const T* offset = nullptr;
  T scale = 1, bias = 0;
  bool has_positive_margin = false, has_negative_margin = false;
  T positive_margin = 0, negative_margin = 0;
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
};

// The derivative of the row's loss by a positive's logit.
template <typename T>
double positive_slope(
    const SlopeOptions<T>& options, const RowSlope<T>& row, const Pair<T>& pair) {
  if (row.row_scale == 0 || options.kind == Kind::kNone) return 0;
  if (options.kind == Kind::kSigmoid)
    return -row.row_scale * sigmoid(-static_cast<double>(pair.score * options.scale + options.bias));
  T logit = pair.score * options.slope;
  if (options.offset != nullptr) logit += options.offset[pair.column];
  const double gap = static_cast<double>(logit) - row.log_sum_exp;
  const double share = 1.0 / static_cast<double>(row.num_positives);
  if (options.kind == Kind::kSoftmax) return row.row_scale * (std::exp(gap) - share);
  return -row.row_scale * share * sigmoid(-gap);
}

// s: columns [start, start + n) with -inf where not negative; positives: those taken out of them.
// spare: room for n elements. Adds to sums where wanted.
template <typename T>
void write_slopes(
    const SlopeOptions<T>& options, const RowSlope<T>& row, T* s, int64_t start, int64_t n,
    const std::vector<Pair<T>>& positives, T* spare, GradientSums& sums) {
  const Kernels<T>& simd = kernels<T>();
  const bool margins =
      options.has_negative_margin && simd.largest(s, n) >= options.negative_margin;
  if (margins)
    simd.margin_slope(s, spare, n, options.negative_margin, options.negative_margin_scale);
  const bool base = options.kind != Kind::kNone && row.row_scale != 0;
  const T inner = options.kind == Kind::kSigmoid ? options.scale : options.slope;
  if (!base) {
    std::fill(s, s + n, T(0));
  } else {
    GradientSums* wanted = options.want_sums ? &sums : nullptr;
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
  }
  if (margins) simd.add_scaled(s, spare, T(1), n);
  for (const Pair<T>& pair : positives) {
    const double g = positive_slope(options, row, pair);
    if (options.want_sums && base) {
      sums.weighted += g * pair.score;
      sums.plain += g;
    }
    double value = base ? g * inner : 0;
    if (options.has_positive_margin && pair.score <= options.positive_margin)
      value -= options.positive_margin_scale;
    s[pair.column - start] = static_cast<T>(value);
  }
}

}  // namespace alc
