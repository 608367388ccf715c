// The dtypes of embeddings, and reading rows of them, 16 bytes per lane at a time.
#pragma once

#include "api.h"
#include "device.h"

namespace alc {

struct Float32 {
  using Raw = float;
  static __device__ float widen(Raw x) { return x; }
  static __device__ void unpack(const uint4& bits, float* out) {
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = __uint_as_float(words[i]);
  }
};

struct BFloat16 {
  using Raw = uint16_t;
  static __device__ float widen(Raw x) { return __uint_as_float(static_cast<unsigned>(x) << 16); }
  static __device__ void unpack(const uint4& bits, float* out) {
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out[2 * i] = __uint_as_float(words[i] << 16);
      out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
};

struct Float16 {
  using Raw = uint16_t;
  static __device__ float widen(Raw x) { return __half2float(__ushort_as_half(x)); }
  static __device__ void unpack(const uint4& bits, float* out) {
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out[2 * i] = widen(static_cast<Raw>(words[i] & 0xffffu));
      out[2 * i + 1] = widen(static_cast<Raw>(words[i] >> 16));
    }
  }
};

// Elements that a lane reads at a time.
template <class E>
constexpr int STEP = 16 / static_cast<int>(sizeof(typename E::Raw));

// Elements ``at`` .. ``at + STEP`` of a row of ``d``; zeros past its end. ALIGNED: rows begin at
// multiples of 16 bytes and d is a multiple of STEP.
template <class E, bool ALIGNED>
__device__ __forceinline__ void read_step(const typename E::Raw* row, int64_t at, int64_t d,
                                          float* out) {
  if (ALIGNED) {
    E::unpack(*reinterpret_cast<const uint4*>(row + at), out);
  } else {
#pragma unroll
    for (int i = 0; i < STEP<E>; ++i) out[i] = at + i < d ? E::widen(row[at + i]) : 0.0f;
  }
}

// Calls ``run(E{}, aligned)`` for a dtype of api.h; ``aligned`` is a std::integral_constant-like.
template <bool B>
struct Flag {
  static constexpr bool value = B;
};

template <class Run>
int for_dtype(int64_t dtype, const void* a, const void* b, int64_t d, const Run& run) {
  const int64_t item = dtype == ALC_FLOAT32 ? 4 : 2;
  const auto address = reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b);
  const bool aligned = address % 16 == 0 && d * item % 16 == 0;
  switch (dtype) {
    case ALC_FLOAT32:
      return aligned ? run(Float32{}, Flag<true>{}) : run(Float32{}, Flag<false>{});
    case ALC_FLOAT16:
      return aligned ? run(Float16{}, Flag<true>{}) : run(Float16{}, Flag<false>{});
    case ALC_BFLOAT16:
      return aligned ? run(BFloat16{}, Flag<true>{}) : run(BFloat16{}, Flag<false>{});
    default:
      return ALC_BAD_DTYPE;
  }
}

}  // namespace alc
