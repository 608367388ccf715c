// What a walk leaves per row, as tensors.
#pragma once

#include <atomic>
#include <limits>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "operators.h"
#include "row_scan.h"

namespace alc {

// Tensors per row; those not asked for are empty.
template <typename T>
struct RowOutputs {
  RowOutputs(const ScanOptions<T>& options, int64_t rows, bool sums) : k(options.top_k) {
    const auto real = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
    const Tensor no_real = at::empty({0}, real), no_index = at::empty({0}, at::kLong);
    const auto made = [&](bool wanted, at::TensorOptions type) {
      const Tensor& none = type.dtype() == caffe2::TypeMeta::Make<int64_t>() ? no_index : no_real;
      all.push_back(wanted ? at::empty({rows}, type) : none);
      return all.back();
    };
    const bool softmax = options.softmax != Softmax::kNone;
    num_positives = made(true, at::kLong).template mutable_data_ptr<int64_t>();
    num_negatives = made(true, at::kLong).template mutable_data_ptr<int64_t>();
    all.push_back(k > 0 ? at::empty({rows, k}, real) : no_real);
    top_score = all.back().template mutable_data_ptr<T>();
    all.push_back(k > 0 ? at::empty({rows, k}, at::kLong) : no_index);
    top_index = all.back().template mutable_data_ptr<int64_t>();
    positive_score = made(options.hardest_positive, real).template mutable_data_ptr<T>();
    positive_index = made(options.hardest_positive, at::kLong).template mutable_data_ptr<int64_t>();
    log_sum_exp = made(softmax, real).template mutable_data_ptr<T>();
    positive_logit_sum = made(softmax, real).template mutable_data_ptr<T>();
    sigmoid_sum = made(options.sigmoid, real).template mutable_data_ptr<T>();
    const bool pm = options.has_positive_margin, nm = options.has_negative_margin;
    positive_margin_sum = made(pm, real).template mutable_data_ptr<T>();
    positive_margin_count = made(pm, at::kLong).template mutable_data_ptr<int64_t>();
    negative_margin_sum = made(nm, real).template mutable_data_ptr<T>();
    negative_margin_count = made(nm, at::kLong).template mutable_data_ptr<int64_t>();
    weighted_sum = made(sums, real).template mutable_data_ptr<T>();
    plain_sum = made(sums, real).template mutable_data_ptr<T>();
  }

  void write(const ScanOptions<T>& options, const RowScan<T>& scan, int64_t i) {
    num_positives[i] = scan.num_positives;
    num_negatives[i] = scan.num_negatives;
    int64_t place = i * k;
    for (const Pair<T>& found : scan.top.found()) {
      top_score[place] = found.score;
      top_index[place++] = found.column;
    }
    for (; place < (i + 1) * k; ++place) {
      top_score[place] = -std::numeric_limits<T>::infinity();
      top_index[place] = -1;
    }
    if (options.hardest_positive) {
      positive_score[i] = scan.positive_score;
      positive_index[i] = scan.positive_index;
    }
    if (options.softmax != Softmax::kNone) {
      log_sum_exp[i] = scan.log_sum_exp();
      positive_logit_sum[i] = static_cast<T>(scan.positive_logit_sum);
    }
    if (options.sigmoid) sigmoid_sum[i] = static_cast<T>(scan.sigmoid_sum);
    if (options.has_positive_margin) {
      positive_margin_sum[i] = static_cast<T>(scan.positive_margin_sum);
      positive_margin_count[i] = scan.positive_margin_count;
    }
    if (options.has_negative_margin) {
      negative_margin_sum[i] = static_cast<T>(scan.negative_margin_sum);
      negative_margin_count[i] = scan.negative_margin_count;
    }
  }

  int64_t k;
  Tensors all;
  int64_t *num_positives, *num_negatives, *top_index, *positive_index;
  int64_t *positive_margin_count, *negative_margin_count;
  T *top_score, *positive_score, *log_sum_exp, *positive_logit_sum, *sigmoid_sum;
  T *positive_margin_sum, *negative_margin_sum, *weighted_sum, *plain_sum;
};

// The margins' sums and counts over all rows: of the positives, then of the negatives.
template <typename T>
struct MarginTotals {
  MarginTotals(const ScanOptions<T>& options, const RowOutputs<T>& rows, int64_t n) {
    const bool pm = options.has_positive_margin, nm = options.has_negative_margin;
    const int64_t size = pm || nm ? 2 : 0;
    sums = at::empty({size}, at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
    counts = at::empty({size}, at::kLong);
    if (size == 0) return;
    add(0, rows.positive_margin_sum, rows.positive_margin_count, pm ? n : 0);
    add(1, rows.negative_margin_sum, rows.negative_margin_count, nm ? n : 0);
  }

  Tensor sums, counts;
  int64_t active = 0;

 private:
  void add(int64_t side, const T* sum, const int64_t* count, int64_t n) {
    double total = 0;
    int64_t pairs = 0;
    for (int64_t i = 0; i < n; ++i) {
      total += sum[i];
      pairs += count[i];
    }
    sums.mutable_data_ptr<T>()[side] = static_cast<T>(total);
    counts.mutable_data_ptr<int64_t>()[side] = pairs;
    active += pairs;
  }
};

// Collects the active pairs of all rows while there are few enough of them.
class ActivePairs {
 public:
  ActivePairs(int64_t rows, int64_t capacity) : rows_(rows), capacity_(capacity) {
    if (capacity_ > 0) lists_.resize(rows);
  }
  bool wanted() const { return capacity_ > 0 && count_.load(std::memory_order_relaxed) <= capacity_; }
  void keep(int64_t row, const ActiveLists& found) {
    const int64_t n = static_cast<int64_t>(found.positives.size() + found.negatives.size());
    if (n == 0 || !wanted()) return;
    count_ += n;
    lists_[row] = found;
  }
  // crow and col of the positives and of the negatives; nothing when there are too many. `total`
  // is their number as the walk's counts have it.
  Tensors tensors(int64_t total) const {
    if (capacity_ <= 0 || total > capacity_) return {};
    Tensors made;
    for (const bool negatives : {false, true}) {
      Tensor crow = at::empty({rows_ + 1}, at::kLong);
      int64_t* starts = crow.mutable_data_ptr<int64_t>();
      starts[0] = 0;
      for (int64_t i = 0; i < rows_; ++i)
        starts[i + 1] = starts[i] + static_cast<int64_t>(list(i, negatives).size());
      Tensor col = at::empty({starts[rows_]}, at::kInt);
      int32_t* columns = col.mutable_data_ptr<int32_t>();
      for (int64_t i = 0; i < rows_; ++i)
        std::copy(list(i, negatives).begin(), list(i, negatives).end(), columns + starts[i]);
      made.push_back(crow);
      made.push_back(col);
    }
    return made;
  }

 private:
  const std::vector<int32_t>& list(int64_t i, bool negatives) const {
    return negatives ? lists_[i].negatives : lists_[i].positives;
  }
  int64_t rows_, capacity_;
  std::atomic<int64_t> count_{0};
  std::vector<ActiveLists> lists_;
};

}  // namespace alc
