// Unit rows and the gradient through them.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>

#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>

#include "arguments.h"
#include "blocks.h"
#include "operators.h"
#include "rows.h"

namespace alc {
namespace {

constexpr double kZeroNorm = 1e-12;
constexpr int64_t kRows = 32;  // of a block

void narrow(const double* x, double* y, int64_t n) { std::copy_n(x, n, y); }
void narrow(const float* x, float* y, int64_t n) { std::copy_n(x, n, y); }
void narrow(const float* x, double* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = x[j];
}
void narrow(const double* x, float* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = static_cast<float>(x[j]);
}
void narrow(const float* x, c10::Half* y, int64_t n) {
  half_kernels().to_half(x, reinterpret_cast<uint16_t*>(y), n);
}
void narrow(const float* x, c10::BFloat16* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = c10::BFloat16(x[j]);
}
template <typename Half>
void narrow(const double* x, Half* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = Half(static_cast<float>(x[j]));
}

// Calls run(pointer) with the data of `x` as its own type.
template <typename Run>
void by_type(const Tensor& x, const Run& run) {
  switch (x.scalar_type()) {
    case at::kDouble:
      return run(static_cast<double*>(x.mutable_data_ptr()));
    case at::kFloat:
      return run(static_cast<float*>(x.mutable_data_ptr()));
    case at::kHalf:
      return run(static_cast<c10::Half*>(x.mutable_data_ptr()));
    case at::kBFloat16:
      return run(static_cast<c10::BFloat16*>(x.mutable_data_ptr()));
    default:
      TORCH_CHECK_TYPE(false, "expected a floating point dtype, got ", x.scalar_type());
  }
}

// Rounds `row` to `type` and back.
template <typename T>
void round_to(at::ScalarType type, T* row, int64_t d) {
  if constexpr (std::is_same_v<T, float>) {
    for (int64_t j = 0; j < d; ++j) {
      if (type == at::kHalf) row[j] = c10::Half(row[j]);
      if (type == at::kBFloat16) row[j] = c10::BFloat16(row[j]);
    }
  }
}

template <typename T>
struct NormalScratch {
  std::vector<T> wide, unit, result;
};

// 1 / norm; 0 where the norm is 0. Where squares could leave the range of T, x is scaled by a power
// of two first, into `spare` (d): that rounds nothing.
template <typename T>
T inverse_norm_of(const T* x, int64_t d, T largest, T* spare) {
  if (!(largest > 0)) return 0;
  int exponent = 0;
  std::frexp(largest, &exponent);
  T down = 1;
  if (exponent < -20 || exponent > 40) {
    down = std::ldexp(T(1), -std::max(exponent, -100));
    kernels<T>().scale(spare, x, down, d);
    x = spare;
  }
  const T scaled = std::sqrt(kernels<T>().dot(x, x, d));
  if (static_cast<double>(scaled) / down <= kZeroNorm) return 0;
  return (T(1) / scaled) * down;
}

// One matrix on its way to unit rows, block by block.
struct UnitRows {
  Tensor rows, inverse;  // inverse: empty without normalisation
  int64_t blocks = 0;
  std::function<bool(int64_t)> make;  // makes a block; whether all it has read is finite
};

UnitRows unit_rows(const char* name, const Tensor& input, at::ScalarType dtype, bool normalize) {
  TORCH_CHECK_VALUE(input.dim() == 2, name, ": expected (n, d), got ", input.sizes());
  TORCH_CHECK(input.device().is_cpu(), name, ": expected a CPU tensor, got ", input.device());
  const Tensor x = input.contiguous();
  const int64_t n = x.size(0), d = x.size(1);
  UnitRows made;
  made.rows = at::empty({n, d}, at::TensorOptions().dtype(dtype));
  made.blocks = blocks_of(n, kRows);
  by_accumulation_type(x, [&](auto zero) {
    using T = decltype(zero);
    made.inverse = at::empty(
        {normalize ? n : 0}, at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
    T* norms = made.inverse.mutable_data_ptr<T>();
    by_type(made.rows, [&](auto* to) {
      made.make = [=](int64_t number) {
        const Rows<T> from(x);
        std::vector<T> wide, unit(d);
        bool good = true;
        for (int64_t i = number * kRows; i < std::min(n, (number + 1) * kRows); ++i) {
          const T* row = from.row(i, wide);
          const T largest = kernels<T>().largest_magnitude(row, d, &good);
          if (normalize) {
            norms[i] = inverse_norm_of(row, d, largest, unit.data());
            if constexpr (std::is_same_v<T*, decltype(to)>) {
              if (x.scalar_type() == dtype) {
                kernels<T>().scale(to + i * d, row, norms[i], d);
                continue;
              }
            }
            kernels<T>().scale(unit.data(), row, norms[i], d);
            if (x.scalar_type() != dtype) round_to(x.scalar_type(), unit.data(), d);
            row = unit.data();
          }
          narrow(row, to + i * d, d);
        }
        return good;
      };
    });
  });
  return made;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> normalize_rows(
    const Tensor& x, at::ScalarType dtype, bool normalize) {
  const UnitRows made = unit_rows("x", x, dtype, normalize);
  std::atomic<bool> finite{true};
  for_each_block(made.blocks, [&](int64_t number) {
    if (!made.make(number)) finite = false;
  });
  return {made.rows, made.inverse, at::scalar_tensor(finite.load(), at::kBool)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> normalize_both(
    const Tensor& queries, const Tensor& labels, at::ScalarType dtype, bool normalize) {
  const UnitRows q = unit_rows("queries", queries, dtype, normalize);
  const UnitRows k = unit_rows("labels", labels, dtype, normalize);
  std::atomic<bool> finite{true};
  for_each_block(q.blocks + k.blocks, [&](int64_t number) {
    const bool good = number < q.blocks ? q.make(number) : k.make(number - q.blocks);
    if (!good) finite = false;
  });
  const double poison = finite.load() ? 1 : std::numeric_limits<double>::quiet_NaN();
  const auto acc = dtype == at::kDouble ? at::kDouble : at::kFloat;
  return {q.rows, q.inverse, k.rows, k.inverse, at::scalar_tensor(poison, acc)};
}

Tensor normalize_rows_backward(
    const Tensor& grad, const Tensor& input, const MaybeTensor& inverse_norm,
    const Tensor& upstream) {
  TORCH_CHECK_VALUE(
      input.dim() == 2 && grad.sizes() == input.sizes(), "grad: expected ", input.sizes(),
      ", got ", grad.sizes());
  const Tensor x = input.contiguous(), g = grad.contiguous();
  const int64_t n = x.size(0), d = x.size(1);
  const Tensor out = at::empty({n, d}, x.options());
  by_accumulation_type(g, [&](auto zero) {
    using T = decltype(zero);
    check_tensor("grad", g, c10::CppTypeToScalarType<T>::value);
    TORCH_CHECK_TYPE(
        (std::is_same_v<T, double>) || x.scalar_type() != at::kDouble,
        "grad: expected float64 for float64 rows");
    Tensor keep;
    const T* norms = vector_of<T>("inverse_norm", inverse_norm, n, keep);
    const T up = number_of<T>("upstream", upstream, 1);
    const Tensor rows_x = x.scalar_type() == g.scalar_type() || std::is_same_v<T, float>
        ? x
        : x.to(g.scalar_type());
    const Rows<T> from(rows_x), by(g);
    by_type(out, [&](auto* to) {
      for_each_block(
          blocks_of(n, kRows), [] { return NormalScratch<T>(); },
          [&](int64_t number, NormalScratch<T>& scratch) {
            scratch.unit.resize(d);
            scratch.result.resize(d);
            for (int64_t i = number * kRows; i < std::min(n, (number + 1) * kRows); ++i) {
              const T* row_g = by.row(i, scratch.wide);
              T* result = scratch.result.data();
              // In place where the type is the same.
              if constexpr (std::is_same_v<T*, decltype(to)>) result = to + i * d;
              if (norms == nullptr) {
                kernels<T>().scale(result, row_g, up, d);
              } else {
                const T* row_x = from.row(i, scratch.wide);
                kernels<T>().scale(scratch.unit.data(), row_x, norms[i], d);
                const T along = kernels<T>().dot(scratch.unit.data(), row_g, d);
                kernels<T>().reject(
                    result, row_g, scratch.unit.data(), along, norms[i] * up, d);
              }
              if constexpr (!std::is_same_v<T*, decltype(to)>) narrow(result, to + i * d, d);
            }
          });
    });
  });
  return out;
}

}  // namespace alc
