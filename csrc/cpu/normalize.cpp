// Unit rows and the gradient through them.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "host.h"
#include "passes.h"
#include "rows.h"

namespace alc {
namespace {

constexpr double kZeroNorm = 1e-12;
constexpr int64_t kRows = 32;  // of a block

template <typename From, typename To>
void narrow(const From* x, To* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    if constexpr (std::is_floating_point_v<To>)
      y[j] = static_cast<To>(x[j]);
    else
      y[j] = To::of(static_cast<float>(x[j]));
  }
}
void narrow(const float* x, Half* y, int64_t n) {
  half_kernels().to_half(x, reinterpret_cast<uint16_t*>(y), n);
}

// Calls run(pointer) with `data` as what it holds.
template <typename Run>
void by_type(Dtype dtype, void* data, const Run& run) {
  switch (dtype) {
    case Dtype::kFloat64:
      return run(static_cast<double*>(data));
    case Dtype::kFloat32:
      return run(static_cast<float*>(data));
    case Dtype::kFloat16:
      return run(static_cast<Half*>(data));
    case Dtype::kBFloat16:
      return run(static_cast<BFloat16*>(data));
  }
}

// Rounds `row` to `dtype` and back.
void round_to(Dtype, double*, int64_t) {}
void round_to(Dtype dtype, float* row, int64_t d) {
  for (int64_t j = 0; j < d; ++j) {
    if (dtype == Dtype::kFloat16) row[j] = Half::of(row[j]).value();
    if (dtype == Dtype::kBFloat16) row[j] = BFloat16::of(row[j]).value();
  }
}

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

// Makes a block of unit rows; whether all it has read is finite.
template <typename T>
bool unit_rows(const NormalRequest& request, int64_t number) {
  const int64_t d = request.dim;
  const Rows<T> from(request.x, request.input, request.rows, d);
  T* norms = static_cast<T*>(request.inverse_norm);
  std::vector<T> wide, unit(d);
  bool good = true;
  by_type(request.output, request.out, [&](auto* to) {
    for (int64_t i = number * kRows; i < std::min(request.rows, (number + 1) * kRows); ++i) {
      const T* row = from.row(i, wide);
      const T largest = kernels<T>().largest_magnitude(row, d, &good);
      if (norms != nullptr) {
        norms[i] = inverse_norm_of(row, d, largest, unit.data());
        if constexpr (std::is_same_v<T*, decltype(to)>) {
          if (request.input == request.output) {
            kernels<T>().scale(to + i * d, row, norms[i], d);
            continue;
          }
        }
        kernels<T>().scale(unit.data(), row, norms[i], d);
        if (request.input != request.output) round_to(request.input, unit.data(), d);
        row = unit.data();
      }
      narrow(row, to + i * d, d);
    }
  });
  return good;
}

// Adds the gradient of a block of rows.
template <typename T>
void gradient_rows(const NormalRequest& request, int64_t number, std::vector<T>& wide) {
  const int64_t d = request.dim;
  const Rows<T> from(request.x, request.input, request.rows, d);
  const T *norms = static_cast<const T*>(request.inverse_norm), *grad = static_cast<const T*>(request.grad);
  const T up = *static_cast<const T*>(request.upstream);
  std::vector<T> unit(d), made(d);
  by_type(request.output, request.out, [&](auto* to) {
    for (int64_t i = number * kRows; i < std::min(request.rows, (number + 1) * kRows); ++i) {
      T* result = made.data();
      // In place where the type is the same.
      if constexpr (std::is_same_v<T*, decltype(to)>) result = to + i * d;
      if (norms == nullptr) {
        kernels<T>().scale(result, grad + i * d, up, d);
      } else {
        kernels<T>().scale(unit.data(), from.row(i, wide), norms[i], d);
        const T along = kernels<T>().dot(unit.data(), grad + i * d, d);
        kernels<T>().reject(result, grad + i * d, unit.data(), along, norms[i] * up, d);
      }
      if constexpr (!std::is_same_v<T*, decltype(to)>) narrow(result, to + i * d, d);
    }
  });
}

}  // namespace

bool normalize(const NormalRequest& one, const NormalRequest* other) {
  const int64_t first = blocks_of(one.rows, kRows);
  const int64_t blocks = first + (other == nullptr ? 0 : blocks_of(other->rows, kRows));
  std::atomic<bool> finite{true};
  for_each_block(blocks, [&](int64_t number) {
    const NormalRequest& own = number < first ? one : *other;
    by_accumulation_type(own.input, [&](auto zero) {
      const int64_t at = number < first ? number : number - first;
      if (!unit_rows<decltype(zero)>(own, at)) finite = false;
    });
  });
  return finite;
}

void normalize_backward(const NormalRequest& request) {
  by_accumulation_type(request.input, [&](auto zero) {
    using T = decltype(zero);
    for_each_block(
        blocks_of(request.rows, kRows), [] { return std::vector<T>(); },
        [&](int64_t number, std::vector<T>& wide) { gradient_rows<T>(request, number, wide); });
  });
}

}  // namespace alc
