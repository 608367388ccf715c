// The half precisions, and the numbers that name every dtype.
#pragma once

#include <bit>
#include <cstdint>

namespace alc {

enum class Dtype : int64_t { kFloat64 = 0, kFloat32 = 1, kFloat16 = 2, kBFloat16 = 3 };

struct Half {
  uint16_t bits;

  static Half of(float x) {
    const uint32_t wide = std::bit_cast<uint32_t>(x), sign = wide >> 16 & 0x8000u;
    uint32_t size = wide & 0x7fffffffu;
    if (size > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};  // NaN
    if (size >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // from 65520 on
    if (size < 0x38800000u) {  // below the smallest normal number: the sum rounds to its multiples
      const float shifted = std::bit_cast<float>(size) + 0.5f;
      return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u))};
    }
    size += 0xfffu + (size >> 13 & 1u);  // to nearest, ties to even
    return {static_cast<uint16_t>(sign | (size - 0x38000000u) >> 13)};
  }

  float value() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t size = static_cast<uint32_t>(bits & 0x7fffu) << 13;
    if (size >= 0x0f800000u) return std::bit_cast<float>(sign | size | 0x7f800000u);  // inf, NaN
    // Scaled by a power of two, which rounds nothing and makes subnormal halves normal.
    const float value = std::bit_cast<float>(size) * 0x1p112f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
  }
};

struct BFloat16 {
  uint16_t bits;

  static BFloat16 of(float x) {
    const uint32_t wide = std::bit_cast<uint32_t>(x);
    if (x != x) return {0x7fc0u};
    return {static_cast<uint16_t>((wide + 0x7fffu + (wide >> 16 & 1u)) >> 16)};
  }

  float value() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

}  // namespace alc
