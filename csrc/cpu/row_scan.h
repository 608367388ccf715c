// One row of similarities, seen tile by tile from the left: its statistics, and its mask.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "guard.h"
#include "relation.h"
#include "request.h"
#include "simd/kernels.h"

namespace alc {

enum class Softmax : int64_t { kNone = 0, kAll = 1, kNegatives = 2 };

// What a walk looks for.
template <typename T>
struct ScanOptions : Formula<T> {
  explicit ScanOptions(const WalkRequest<T>& request)
      : Formula<T>(request.formula), top_k(request.top_k),
        softmax(static_cast<Softmax>(request.softmax)), sigmoid(request.sigmoid_sum != nullptr),
        keep_active(request.active_capacity > 0) {}

  int64_t top_k;
  Softmax softmax;
  bool sigmoid, keep_active;
};

// Indices of a row's active pairs.
struct ActiveLists {
  std::vector<int32_t> positives, negatives;
};

template <typename T>
struct Pair {
  int64_t column;
  T score;
};

inline double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }
inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// The k largest of a row, equal values by smaller column. Columns arrive in ascending order.
template <typename T>
class TopK {
 public:
  void reset(int64_t k) {
    k_ = k;
    found_.clear();
  }
  T threshold() const {
    if (k_ == 0) return std::numeric_limits<T>::infinity();
    return static_cast<int64_t>(found_.size()) < k_ ? -std::numeric_limits<T>::infinity()
                                                    : found_.back().score;
  }
  // `score` must exceed the threshold.
  void insert(int64_t column, T score) {
    if (static_cast<int64_t>(found_.size()) == k_) found_.pop_back();
    auto at = found_.end();
    while (at != found_.begin() && (at - 1)->score < score) --at;
    found_.insert(at, {column, score});
  }
  // The same of any score; whether it is among them.
  bool raise(int64_t column, T score) {
    if (!(score > threshold())) return false;
    insert(column, score);
    return true;
  }
  const std::vector<Pair<T>>& found() const { return found_; }
  int64_t size() const { return k_; }  // that are wanted

 private:
  int64_t k_ = 0;
  std::vector<Pair<T>> found_;
};

// Positives and excluded pairs of a row, taken out of it from left to right.
template <typename T>
class RowMask {
 public:
  void begin(Span positives, Span excluded) {
    positives_ = positives;
    excluded_ = excluded;
  }
  // Skips what lies before `column`.
  void seek(int64_t column) {
    positives_.begin = std::lower_bound(positives_.begin, positives_.end, column);
    excluded_.begin = std::lower_bound(excluded_.begin, excluded_.end, column);
  }
  // Calls positive(column, score) for each in [start, start + n), then overwrites all with -inf.
  template <typename Positive>
  void take(T* s, int64_t start, int64_t n, const Positive& positive) {
    constexpr T out = -std::numeric_limits<T>::infinity();
    for (; positives_.begin != positives_.end && *positives_.begin < start + n; ++positives_.begin) {
      T& score = s[*positives_.begin - start];
      positive(*positives_.begin, score);
      score = out;
    }
    for (; excluded_.begin != excluded_.end && *excluded_.begin < start + n; ++excluded_.begin)
      s[*excluded_.begin - start] = out;
  }

 private:
  Span positives_{nullptr, nullptr}, excluded_{nullptr, nullptr};
};

template <typename T>
class RowScan {
 public:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  // Starts a row.
  void begin(
      const ScanOptions<T>& options, Span positives, Span excluded, int64_t columns,
      RowGuard<T> guard) {
    mask_.begin(positives, excluded);
    num_positives = positives.size();
    num_negatives = columns - union_size(positives, excluded);
    guard_ = guard;
    top.reset(std::min(options.top_k, columns));
    positive_score = kInfinity;
    positive_index = -1;
    bound_ = -kInfinity;
    sum_ = positive_logit_sum = sigmoid_sum = 0;
    positive_margin_sum = negative_margin_sum = 0;
    positive_margin_count = negative_margin_count = 0;
  }

  // The row's columns [start, start + n). Leaves -inf in `s` at all that are not negatives, and
  // appends positives to `taken` where it is given.
  void tile(
      const ScanOptions<T>& options, T* s, int64_t start, int64_t n, ActiveLists* active,
      std::vector<Pair<T>>* taken) {
    const Kernels<T>& simd = kernels<T>();
    mask_.take(s, start, n, [&](int64_t column, T score) {
      positive(options, column, score, active);
      if (taken != nullptr) taken->push_back({column, score});
    });
    num_negatives -= guard_.exclude(s, start, n);
    const bool plain = options.offset == nullptr && options.slope > 0;
    T largest = kInfinity;
    if (options.top_k > 0 || options.has_negative_margin ||
        (options.softmax != Softmax::kNone && plain))
      largest = simd.largest(s, n);
    if (options.top_k > 0) select(s, start, n, largest);
    if (options.has_negative_margin && largest >= options.negative_margin)
      threshold(options, s, start, n, active);
    if (options.softmax != Softmax::kNone) {
      const T* offset = options.offset == nullptr ? nullptr : options.offset + start;
      raise(plain ? largest * options.slope : simd.largest_logit(s, n, options.slope, offset));
      if (bound_ > -kInfinity) sum_ += simd.sum_exp(s, n, options.slope, offset, bound_);
    }
    if (options.sigmoid) sigmoid_sum += simd.sum_softplus(s, n, options.scale, options.bias);
  }

  // The same of single columns, ascending, without tiles: a positive,
  void found_positive(
      const ScanOptions<T>& options, int64_t column, T score, ActiveLists* active) {
    positive(options, column, score, active);
  }
  // and one that is neither positive nor excluded.
  void found_negative(
      const ScanOptions<T>& options, int64_t column, T score, ActiveLists* active) {
    if (guard_.exclude(&score, column, 1) != 0) {
      --num_negatives;
      return;
    }
    top.raise(column, score);
    if (!options.has_negative_margin || !(score >= options.negative_margin)) return;
    negative_margin_sum += score - options.negative_margin;
    ++negative_margin_count;
    if (active != nullptr) active->negatives.push_back(static_cast<int32_t>(column));
  }
  // All columns before `column` have been; `guarded` more of them are above the guard.
  void found_until(int64_t column, int64_t guarded) {
    num_negatives -= guarded;
    mask_.seek(column);
  }

  T log_sum_exp() const {
    return bound_ > -kInfinity ? static_cast<T>(bound_ + std::log(sum_)) : -kInfinity;
  }

  int64_t num_positives = 0, num_negatives = 0;
  TopK<T> top;
  T positive_score = 0;
  int64_t positive_index = -1;
  double positive_logit_sum = 0, sigmoid_sum = 0;
  double positive_margin_sum = 0, negative_margin_sum = 0;
  int64_t positive_margin_count = 0, negative_margin_count = 0;

 private:
  void raise(T logit) {
    if (!(logit > bound_)) return;
    sum_ = bound_ > -kInfinity ? sum_ * std::exp(static_cast<double>(bound_ - logit)) : 0;
    bound_ = logit;
  }

  void positive(const ScanOptions<T>& options, int64_t column, T score, ActiveLists* active) {
    if (score < positive_score || positive_index < 0) {
      positive_score = score;
      positive_index = column;
    }
    if (options.softmax != Softmax::kNone) {
      T logit = score * options.slope;
      if (options.offset != nullptr) logit += options.offset[column];
      positive_logit_sum += logit;
      if (options.softmax == Softmax::kAll) {
        raise(logit);
        if (bound_ > -kInfinity) sum_ += std::exp(static_cast<double>(logit - bound_));
      }
    }
    if (options.sigmoid) sigmoid_sum += softplus(-(score * options.scale + options.bias));
    if (options.has_positive_margin && score <= options.positive_margin) {
      positive_margin_sum += options.positive_margin - score;
      ++positive_margin_count;
      if (active != nullptr) active->positives.push_back(static_cast<int32_t>(column));
    }
  }

  void select(const T* s, int64_t start, int64_t n, T largest) {
    const Kernels<T>& simd = kernels<T>();
    T least = top.threshold();
    if (!(largest > least)) return;
    if (top.size() == 1) {  // the first that is as large as the largest
      int64_t j = simd.next_above(s, n, 0, std::nextafter(largest, -kInfinity));
      while (j < n && !(s[j] >= largest)) ++j;
      if (j == n)  // numbers next to 0 that are taken for 0 are not above each other
        for (j = 0; j < n && !(s[j] >= largest);) ++j;
      if (j < n) top.insert(start + j, s[j]);
      return;
    }
    for (int64_t j = 0; j < n;) {
      j = simd.next_above(s, n, j, least);
      const int64_t stop = std::min(n, j + 32);
      for (; j < stop; ++j)
        if (s[j] > least) {
          top.insert(start + j, s[j]);
          least = top.threshold();
        }
    }
  }

  void threshold(
      const ScanOptions<T>& options, const T* s, int64_t start, int64_t n, ActiveLists* active) {
    const Kernels<T>& simd = kernels<T>();
    negative_margin_count += simd.over(s, n, options.negative_margin, &negative_margin_sum);
    if (active == nullptr) return;
    for (int64_t j = 0; j < n;) {
      // The smallest number below the margin: elements equal to it are active as well.
      j = simd.next_above(s, n, j, std::nextafter(options.negative_margin, -kInfinity));
      const int64_t stop = std::min(n, j + 32);
      for (; j < stop; ++j)
        if (s[j] >= options.negative_margin)
          active->negatives.push_back(static_cast<int32_t>(start + j));
    }
  }

  RowMask<T> mask_;
  RowGuard<T> guard_;
  T bound_ = 0;
  double sum_ = 0;
};

}  // namespace alc
