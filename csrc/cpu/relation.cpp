#include "relation.h"

#include <algorithm>

#include <ATen/ops/arange.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <c10/util/Exception.h>

namespace alc {
namespace {

const int64_t* indices(
    const char* name, const at::Tensor& x, int64_t size, std::vector<at::Tensor>& keep) {
  TORCH_CHECK_TYPE(
      x.scalar_type() == at::kLong, name, ": expected int64 tensors, got ", x.scalar_type());
  TORCH_CHECK(x.device().is_cpu(), name, ": expected CPU tensors, got ", x.device());
  TORCH_CHECK_VALUE(
      x.dim() == 1 && (size < 0 || x.size(0) == size), name, ": expected ", size,
      " entries, got shape ", x.sizes());
  keep.push_back(x.contiguous());
  return keep.back().const_data_ptr<int64_t>();
}

void check_columns(const char* name, const int64_t* col, int64_t n, int64_t cols) {
  for (int64_t k = 0; k < n; ++k)
    TORCH_CHECK_INDEX(
        col[k] >= 0 && col[k] < cols, name, ": label ", col[k], " is out of range: expected 0 <= "
        "label < ", cols);
}

}  // namespace

Relation::Relation(
    const char* name, const std::string& kind, const std::vector<at::Tensor>& tensors,
    int64_t rows, int64_t cols) {
  const auto expect = [&](size_t count) {
    TORCH_CHECK_VALUE(
        tensors.size() >= count, name, ": kind ", kind, " needs ", count, " tensors, got ",
        tensors.size());
  };
  const auto counting = [&](int64_t n) {
    keep_.push_back(at::arange(n, at::kLong));
    return keep_.back().const_data_ptr<int64_t>();
  };
  if (kind == "empty") return;
  if (kind == "diagonal") {
    TORCH_CHECK_VALUE(rows == cols, name, ": a diagonal needs B = M, got ", rows, " and ", cols);
    start_ = counting(rows + 1);
    stop_ = start_ + 1;
    col_ = start_;
  } else if (kind == "index") {
    expect(1);
    col_ = indices(name, tensors[0], rows, keep_);
    check_columns(name, col_, rows, cols);
    start_ = counting(rows + 1);
    stop_ = start_ + 1;
  } else if (kind == "csr") {
    expect(2);
    start_ = indices(name, tensors[0], rows + 1, keep_);
    stop_ = start_ + 1;
    col_ = indices(name, tensors[1], -1, keep_);
    const int64_t n = tensors[1].size(0);
    check_columns(name, col_, n, cols);
    TORCH_CHECK_VALUE(
        start_[0] == 0 && start_[rows] == n && std::is_sorted(start_, start_ + rows + 1), name,
        ": crow is not a row pointer from 0 to ", n);
  } else if (kind == "ids") {
    expect(2);
    const int64_t* query_ids = indices(name, tensors[0], rows, keep_);
    indices(name, tensors[1], cols, keep_);
    (void)query_ids;
    const auto [ordered, order] = at::sort(keep_[1], std::optional<bool>(true), /*dim=*/0);
    keep_.push_back(order.contiguous());
    col_ = keep_.back().const_data_ptr<int64_t>();
    const at::Tensor values = ordered.contiguous(), queries = keep_[0];
    keep_.push_back(at::searchsorted(values, queries).contiguous());
    start_ = keep_.back().const_data_ptr<int64_t>();
    keep_.push_back(at::searchsorted(values, queries, /*out_int32=*/false, /*right=*/true).contiguous());
    stop_ = keep_.back().const_data_ptr<int64_t>();
  } else {
    TORCH_CHECK_VALUE(false, name, ": unknown kind ", kind);
  }
}

int64_t union_size(Span a, Span b) {
  int64_t both = 0;
  const int64_t *x = a.begin, *y = b.begin;
  while (x != a.end && y != b.end) {
    both += *x == *y;
    const bool step_x = *x <= *y, step_y = *y <= *x;
    x += step_x;
    y += step_y;
  }
  return a.size() + b.size() - both;
}

}  // namespace alc
