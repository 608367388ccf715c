// Products of blocks by the BLAS behind PyTorch; on one thread inside a parallel region.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

namespace alc {

template <typename T>
at::Tensor matrix(const T* data, int64_t rows, int64_t cols, int64_t stride) {
  return at::from_blob(
      const_cast<T*>(data), {rows, cols}, {stride, 1},
      at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
}

// out (r, c), rows `stride` apart <- a (r, d) b^T, b (c, d)
template <typename T>
void multiply_rows(
    const T* a, int64_t r, const T* b, int64_t c, int64_t d, T* out, int64_t stride) {
  at::Tensor result = matrix(out, r, c, stride);
  at::mm_out(result, matrix(a, r, d, d), matrix(b, c, d, d).t());
}

// out += a b, or where `fresh` (it holds nothing yet) out <- a b
inline void accumulate(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool fresh) {
  if (fresh)
    at::mm_out(out, a, b);
  else
    at::addmm_out(out, out, a, b);
}

// out (r, d) += g (r, c) b, b (c, d)
template <typename T>
void add_product(
    const T* g, int64_t stride, int64_t r, int64_t c, const T* b, int64_t d, T* out, bool fresh) {
  at::Tensor result = matrix(out, r, d, d);
  accumulate(result, matrix(g, r, c, stride), matrix(b, c, d, d), fresh);
}

// out (c, d) += g^T a, g (r, c), a (r, d)
template <typename T>
void add_transposed_product(
    const T* g, int64_t stride, int64_t r, int64_t c, const T* a, int64_t d, T* out, bool fresh) {
  at::Tensor result = matrix(out, c, d, d);
  accumulate(result, matrix(g, r, c, stride).t(), matrix(a, r, d, d), fresh);
}

}  // namespace alc
