// Rows of embeddings in their accumulation type, widened block by block where they are halves.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "simd/kernels.h"

namespace alc {

inline void widen(const float* x, float* y, int64_t n) { std::copy_n(x, n, y); }
inline void widen(const double* x, double* y, int64_t n) { std::copy_n(x, n, y); }
inline void widen(const c10::Half* x, float* y, int64_t n) {
  half_kernels().from_half(reinterpret_cast<const uint16_t*>(x), y, n);
}
inline void widen(const c10::BFloat16* x, float* y, int64_t n) {
  const auto* bits = reinterpret_cast<const uint16_t*>(x);
  for (int64_t j = 0; j < n; ++j) {
    const uint32_t wide = static_cast<uint32_t>(bits[j]) << 16;
    std::memcpy(y + j, &wide, sizeof wide);
  }
}

// A contiguous (n, d) tensor, read as T (its accumulation type).
template <typename T>
class Rows {
 public:
  explicit Rows(const at::Tensor& x)
      : data_(x.const_data_ptr()), type_(x.scalar_type()), count_(x.size(0)), width_(x.size(1)) {
    TORCH_CHECK(x.is_contiguous(), "rows must be contiguous");
  }

  int64_t count() const { return count_; }
  int64_t width() const { return width_; }
  bool wide() const { return type_ == at::kFloat || type_ == at::kDouble; }

  // `size` rows from `start`: where they lie, or widened into `buffer`.
  const T* block(int64_t start, int64_t size, std::vector<T>& buffer) const {
    const int64_t from = start * width_, n = size * width_;
    if (wide()) return static_cast<const T*>(data_) + from;
    if (static_cast<int64_t>(buffer.size()) < n) buffer.resize(n);
    if constexpr (std::is_same_v<T, float>) {
      if (type_ == at::kHalf)
        widen(static_cast<const c10::Half*>(data_) + from, buffer.data(), n);
      else
        widen(static_cast<const c10::BFloat16*>(data_) + from, buffer.data(), n);
    }
    return buffer.data();
  }

  const T* row(int64_t i, std::vector<T>& buffer) const { return block(i, 1, buffer); }

 private:
  const void* data_;
  at::ScalarType type_;
  int64_t count_, width_;
};

// Calls `run` with a value of the accumulation type of `x`: float for halves.
template <typename Run>
auto by_accumulation_type(const at::Tensor& x, const Run& run) {
  switch (x.scalar_type()) {
    case at::kDouble:
      return run(double{});
    case at::kFloat:
    case at::kHalf:
    case at::kBFloat16:
      return run(float{});
    default:
      TORCH_CHECK_TYPE(
          false, "expected float64, float32, float16 or bfloat16 rows, got ", x.scalar_type());
  }
}

}  // namespace alc
