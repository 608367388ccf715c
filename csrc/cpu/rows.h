// Rows of embeddings in their accumulation type, widened block by block where they are halves.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "element.h"
#include "simd/kernels.h"

namespace alc {

// A contiguous (n, d) matrix, read as T (its accumulation type).
template <typename T>
class Rows {
 public:
  Rows(const void* data, Dtype dtype, int64_t count, int64_t width)
      : data_(data), dtype_(dtype), count_(count), width_(width) {}

  int64_t count() const { return count_; }
  int64_t width() const { return width_; }
  bool wide() const { return dtype_ == Dtype::kFloat32 || dtype_ == Dtype::kFloat64; }

  // `size` rows from `start`: where they lie, or widened into `buffer`.
  const T* block(int64_t start, int64_t size, std::vector<T>& buffer) const {
    const int64_t from = start * width_, n = size * width_;
    if (wide()) return static_cast<const T*>(data_) + from;
    if (static_cast<int64_t>(buffer.size()) < n) buffer.resize(n);
    if constexpr (std::is_same_v<T, float>) {
      if (dtype_ == Dtype::kFloat16) {
        half_kernels().from_half(static_cast<const uint16_t*>(data_) + from, buffer.data(), n);
      } else {
        const BFloat16* x = static_cast<const BFloat16*>(data_) + from;
        for (int64_t j = 0; j < n; ++j) buffer[j] = x[j].value();
      }
    }
    return buffer.data();
  }

  const T* row(int64_t i, std::vector<T>& buffer) const { return block(i, 1, buffer); }

 private:
  const void* data_;
  Dtype dtype_;
  int64_t count_, width_;
};

// Calls `run` with a value of the accumulation type: float for halves.
template <typename Run>
void by_accumulation_type(Dtype dtype, const Run& run) {
  if (dtype == Dtype::kFloat64)
    run(double{});
  else
    run(float{});
}

}  // namespace alc
