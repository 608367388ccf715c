// Similarities at several prefix widths: sums that grow along the embedding, scaled at each width.
#pragma once

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include "arguments.h"
#include "operators.h"
#include "product.h"
#include "rows.h"

namespace alc {

template <typename T>
struct PrefixTiles {
  const Rows<T>&queries, &labels;
  at::IntArrayRef widths;
  const T *query_scale, *label_scale;  // (W, B), (W, M), or null

  int64_t count() const { return static_cast<int64_t>(widths.size()); }
  int64_t before(int64_t n) const { return n == 0 ? 0 : widths[n - 1]; }

  // raw (r, c) += q (r, d) k^T, k (c, d), of the coordinates that width n has more than n - 1.
  void grow(const T* q, int64_t r, const T* k, int64_t c, int64_t n, T* raw, int64_t stride) const {
    const int64_t d = labels.width(), from = before(n), more = widths[n] - from;
    at::Tensor sum = matrix(raw, r, c, stride);
    const at::Tensor a = matrix(q + from, r, more, d), b = matrix(k + from, c, more, d).t();
    if (n == 0)
      at::mm_out(sum, a, b);
    else
      at::addmm_out(sum, sum, a, b);
  }

  // s (c) <- row i's similarities of width n with the labels [col, col + c)
  void scale(const T* raw, int64_t n, int64_t i, int64_t col, int64_t c, T* s) const {
    if (query_scale == nullptr) {
      std::copy_n(raw, c, s);
      return;
    }
    kernels<T>().scale_each(
        s, raw, label_scale + n * labels.count() + col, query_scale[n * queries.count() + i], c);
  }
};

// The checks that both operators share.
inline void check_widths(
    const at::Tensor& queries, at::IntArrayRef widths, const MaybeTensor& query_scale,
    const MaybeTensor& label_scale) {
  TORCH_CHECK_VALUE(!widths.empty(), "widths: expected one or more");
  for (size_t n = 0; n < widths.size(); ++n)
    TORCH_CHECK_VALUE(
        widths[n] > (n == 0 ? 0 : widths[n - 1]) && widths[n] <= queries.size(1),
        "widths: expected ascending numbers in 1 .. ", queries.size(1), ", got ", widths);
  TORCH_CHECK_VALUE(
      query_scale.has_value() == label_scale.has_value(),
      "query_scale and label_scale: expected both or neither");
}

// A contiguous (widths, n) tensor, kept alive by `keep`; null for an absent one.
template <typename T>
const T* plane_of(const char* name, const MaybeTensor& x, int64_t widths, int64_t n, Tensor& keep) {
  if (!x.has_value()) return nullptr;
  check_tensor(name, *x, c10::CppTypeToScalarType<T>::value);
  TORCH_CHECK_VALUE(
      x->dim() == 2 && x->size(0) == widths && x->size(1) == n, name, ": expected (", widths, ", ",
      n, "), got ", x->sizes());
  keep = x->contiguous();
  return keep.const_data_ptr<T>();
}

}  // namespace alc
