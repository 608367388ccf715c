// The columns' softmax statistics, gathered from the tiles of a walk over the rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "host.h"
#include "relation.h"
#include "row_scan.h"

namespace alc {

// Rows are dealt to groups; a group adds its rows in order, and groups are merged in order, so that
// the sums do not depend on the threads. More groups serve more threads and take more memory.
constexpr int64_t kColumnBytes = 16 << 20;
constexpr int64_t kMinGroups = 4, kMaxGroups = 64;

template <typename T>
class ColumnScan {
 public:
  // negatives_only: the log-sum-exp is over the negatives. blocks: of rows, dealt to groups.
  ColumnScan(bool negatives_only, T slope, int64_t columns, int64_t blocks)
      : all_(!negatives_only), slope_(slope), columns_(columns) {
    const int64_t each = std::max<int64_t>(columns, 1) * static_cast<int64_t>(sizeof(T) + 16);
    const int64_t wanted = std::clamp(kColumnBytes / each, kMinGroups, kMaxGroups);
    const int64_t size = blocks_of(std::max<int64_t>(blocks, 1), wanted);
    groups_.resize(std::max<int64_t>(1, blocks_of(blocks, size)));
    for (Group& group : groups_) {
      group.top.assign(columns, -kInfinity);
      group.sum.assign(columns, 0);
      group.logits.assign(columns, 0);
    }
  }

  int64_t groups() const { return static_cast<int64_t>(groups_.size()); }

  struct Scratch {
    std::vector<T> top, sum;
  };

  // A tile of r rows, `stride` apart, columns [start, start + n), -inf where not negative.
  void tile(
      int64_t group, const T* s, int64_t stride, int64_t r, int64_t start, int64_t n,
      Scratch& scratch) {
    const Kernels<T>& simd = kernels<T>();
    scratch.top.assign(n, -kInfinity);
    scratch.sum.assign(n, 0);
    for (int64_t i = 0; i < r; ++i)
      simd.column_largest(s + i * stride, n, slope_, scratch.top.data());
    for (int64_t i = 0; i < r; ++i)
      simd.column_sum_exp(s + i * stride, n, slope_, scratch.top.data(), scratch.sum.data());
    for (int64_t j = 0; j < n; ++j)
      groups_[group].add(start + j, scratch.top[j], scratch.sum[j]);
  }

  void positive(int64_t group, const Pair<T>& pair) {
    const T logit = pair.score * slope_;
    groups_[group].logits[pair.column] += logit;
    if (all_) groups_[group].add(pair.column, logit, 1);
  }

  void write(T* log_sum_exp, T* positive_logit_sum) {
    Group& total = groups_[0];
    for (int64_t j = 0; j < columns_; ++j) {
      for (size_t g = 1; g < groups_.size(); ++g) {
        total.add(j, groups_[g].top[j], groups_[g].sum[j]);
        total.logits[j] += groups_[g].logits[j];
      }
      log_sum_exp[j] =
          total.top[j] > -kInfinity ? static_cast<T>(total.top[j] + std::log(total.sum[j]))
                                    : -kInfinity;
      positive_logit_sum[j] = static_cast<T>(total.logits[j]);
    }
  }

 private:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  struct Group {
    std::vector<T> top;               // largest logit of a column
    std::vector<double> sum, logits;  // of exp(logit - top); of the positives' logits

    void add(int64_t j, T logit, double weight) {
      if (logit > top[j]) {
        sum[j] = sum[j] * std::exp(static_cast<double>(top[j]) - logit) + weight;
        top[j] = logit;
      } else if (logit > -kInfinity) {
        sum[j] += weight * std::exp(static_cast<double>(logit) - top[j]);
      }
    }
  };

  bool all_;
  T slope_;
  int64_t columns_;
  std::vector<Group> groups_;
};

}  // namespace alc
