// A similarity and its label as one integer: larger is better, equal similarities by smaller label.
#pragma once

#include "device.h"

namespace alc {

using Key = unsigned long long;

constexpr Key NO_KEY = 0;  // below every other: what is no candidate

// -inf and NaN are no candidates; label < 2^32 - 1. The two zeros are equal.
__device__ __forceinline__ Key make_key(float value, unsigned label) {
  if (!(value > -INFINITY)) return NO_KEY;
  const unsigned bits = __float_as_uint(value + 0.0f);
  const unsigned order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<Key>(order) << 32 | (0xffffffffu - label);
}

__device__ __forceinline__ float key_value(Key key) {
  const unsigned order = static_cast<unsigned>(key >> 32);
  return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

__device__ __forceinline__ unsigned key_label(Key key) {
  return 0xffffffffu - static_cast<unsigned>(key);
}

}  // namespace alc
