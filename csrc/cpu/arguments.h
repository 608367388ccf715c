// Checked access to operator arguments.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace alc {

// (B, d) and (M, d) rows of one dtype on the CPU.
inline void check_rows(const at::Tensor& queries, const at::Tensor& labels) {
  TORCH_CHECK_VALUE(
      queries.dim() == 2 && labels.dim() == 2 && queries.size(1) == labels.size(1),
      "queries and labels: expected (B, d) and (M, d), got ", queries.sizes(), " and ",
      labels.sizes());
  TORCH_CHECK_TYPE(
      queries.scalar_type() == labels.scalar_type(), "labels: expected ", queries.scalar_type(),
      " (as queries), got ", labels.scalar_type());
  TORCH_CHECK(
      queries.device().is_cpu() && labels.device().is_cpu(),
      "queries and labels: expected CPU tensors, got ", queries.device(), " and ",
      labels.device());
}

inline void check_tensor(const char* name, const at::Tensor& x, at::ScalarType type) {
  TORCH_CHECK_TYPE(x.scalar_type() == type, name, ": expected ", type, ", got ", x.scalar_type());
  TORCH_CHECK(x.device().is_cpu(), name, ": expected a CPU tensor, got ", x.device());
}

// A contiguous vector of n elements, kept alive by `keep`; null for an absent one.
template <typename T>
const T* vector_of(
    const char* name, const std::optional<at::Tensor>& x, int64_t n, at::Tensor& keep) {
  if (!x.has_value()) return nullptr;
  check_tensor(name, *x, c10::CppTypeToScalarType<T>::value);
  TORCH_CHECK_VALUE(
      x->dim() == 1 && x->size(0) == n, name, ": expected (", n, ",), got ", x->sizes());
  keep = x->contiguous();
  return keep.const_data_ptr<T>();
}

template <typename T>
T number_of(const char* name, const std::optional<at::Tensor>& x, T otherwise) {
  if (!x.has_value()) return otherwise;
  TORCH_CHECK_VALUE(x->numel() == 1, name, ": expected one number, got shape ", x->sizes());
  return x->item().to<T>();
}

// A gradient to add to: contiguous, of the accumulation type; null for an absent one.
template <typename T>
T* target_of(const char* name, const std::optional<at::Tensor>& x, int64_t n, int64_t d) {
  if (!x.has_value()) return nullptr;
  check_tensor(name, *x, c10::CppTypeToScalarType<T>::value);
  TORCH_CHECK_VALUE(
      x->dim() == 2 && x->size(0) == n && x->size(1) == d && x->is_contiguous(), name,
      ": expected a contiguous (", n, ", ", d, ") tensor, got shape ", x->sizes());
  return x->mutable_data_ptr<T>();
}

// Zeros where there is something to add to but nothing will be: no query, or no label.
inline void clear_gradients(
    const std::optional<at::Tensor>& grad_queries, const std::optional<at::Tensor>& grad_labels) {
  for (const auto& grad : {grad_queries, grad_labels})
    if (grad.has_value()) grad->zero_();
}

}  // namespace alc
