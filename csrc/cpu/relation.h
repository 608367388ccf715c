// A sparse relation in the form that every pass uses: for each row its columns, ascending.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace alc {

struct Span {
  const int64_t* begin;
  const int64_t* end;
  int64_t size() const { return end - begin; }
};

class Relation {
 public:
  // kind and tensors as `alc_kernels.positives.Positives` has them; checks every index.
  Relation(
      const char* name, const std::string& kind, const std::vector<at::Tensor>& tensors,
      int64_t rows, int64_t cols);

  bool empty() const { return start_ == nullptr; }

  Span row(int64_t i) const {
    if (start_ == nullptr) return {nullptr, nullptr};
    return {col_ + start_[i], col_ + stop_[i]};
  }

 private:
  std::vector<at::Tensor> keep_;
  const int64_t* start_ = nullptr;
  const int64_t* stop_ = nullptr;
  const int64_t* col_ = nullptr;
};

// Calls visit(column) for each column in either of two ascending rows, once.
template <typename Visit>
void visit_union(Span a, Span b, const Visit& visit) {
  const int64_t *x = a.begin, *y = b.begin;
  while (x != a.end || y != b.end) {
    const int64_t column = y == b.end || (x != a.end && *x < *y) ? *x : *y;
    visit(column);
    x += x != a.end && *x == column;
    y += y != b.end && *y == column;
  }
}

// Number of columns in either of two ascending rows.
int64_t union_size(Span a, Span b);

}  // namespace alc
