// Vector loops of ALC's batch part, compiled and chosen as those of kernels.h.
#pragma once

#include <cstdint>

namespace alc {

// out (rows, cols) <- or += a b, with a[i, p] at i * a_row + p * a_step, and rows of b and out that
// are ldb and ldo apart.
template <typename T>
struct Product {
  int64_t rows, cols, steps;
  const T* a;
  int64_t a_row, a_step;
  const T* b;
  int64_t ldb;
  T* out;
  int64_t ldo;
  bool add;
};

template <typename T>
struct ContextKernels {
  void (*product)(const Product<T>& own);
  // out (3n) <- [k; |q - k|; q * k]
  void (*features)(const T* q, const T* k, T* out, int64_t n);
  // grad_q += and grad_k <-, of the gradient (3n) of those features.
  void (*features_backward)(const T* grad, const T* q, const T* k, T* grad_q, T* grad_k, int64_t n);
  // unit <- (x - mean) / deviation, out <- unit * weight + bias; returns 1 / deviation.
  T (*layer_norm)(const T* x, const T* weight, const T* bias, T eps, T* unit, T* out, int64_t n);
  // grad <- the gradient of x; adds those of weight and bias.
  void (*layer_norm_backward)(
      T* grad, const T* unit, T inverse, const T* weight, T* grad_weight, T* grad_bias, int64_t n);
  // out <- x Phi(x), the exact form
  void (*gelu)(const T* x, T* out, int64_t n);
  // grad *= d gelu(x) / dx
  void (*gelu_backward)(const T* x, T* grad, int64_t n);
  // x[j] <- keep ? x[j] * scale : 0; keep with probability 1 - limit / 2^32, by seed and at + j.
  void (*drop)(T* x, int64_t n, uint32_t seed, uint32_t at, uint32_t limit, T scale);
  // x <- p (x - along) scale
  void (*softmax_backward)(T* x, const T* p, T along, T scale, int64_t n);
  // y += x
  void (*add)(T* y, const T* x, int64_t n);
};

// The best set that this processor has.
template <typename T>
const ContextKernels<T>& context_kernels();

}  // namespace alc
