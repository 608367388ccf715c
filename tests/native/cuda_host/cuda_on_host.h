// The part of CUDA that csrc/cuda uses, on the host: the same kernels run one block at a time, each
// thread as a fiber with its own stack that runs until it waits. Barriers and warp exchanges really
// wait for every thread they are about, and report a deadlock. The order in which threads and blocks
// run can be reversed and shuffled (``on_host_order``): a result that depends on it is a race.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};
extern Index3 threadIdx, blockIdx, blockDim, gridDim;

struct uint4 {
  unsigned x, y, z, w;
};

using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8;
constexpr size_t ON_HOST_SHARED_LIMIT = 232448;  // of compute capability 9.0

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
inline cudaError_t cudaFuncSetAttribute(const void*, int, int bytes) {
  return static_cast<size_t>(bytes) <= ON_HOST_SHARED_LIMIT ? cudaSuccess : 1;
}

namespace on_host {

void launch(const std::function<void()>& kernel, unsigned blocks, unsigned threads, size_t bytes);
unsigned char* shared_memory();
void block_barrier();
// Waits for the whole warp, each lane leaving 8 bytes; ``all`` gets those of every lane.
void warp_exchange(uint64_t mine, uint64_t* all);

template <class T>
T from_lane(unsigned mask, T value, int lane);

}  // namespace on_host

#define ALC_LAUNCH(kernel, blocks, threads, bytes, stream, ...) \
  ((void)(stream), on_host::launch([&] { (kernel)(__VA_ARGS__); }, blocks, threads, bytes))
#define ALC_SHARED(name) unsigned char* name = on_host::shared_memory()

inline void __syncthreads() { on_host::block_barrier(); }

inline void __syncwarp() {
  uint64_t all[32];
  on_host::warp_exchange(0, all);
}

inline unsigned __ballot_sync(unsigned, bool here) {
  uint64_t all[32];
  on_host::warp_exchange(here, all);
  unsigned lanes = 0;
  for (int i = 0; i < 32; ++i) lanes |= static_cast<unsigned>(all[i]) << i;
  return lanes;
}

namespace on_host {

template <class T>
T from_lane(unsigned, T value, int lane) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0, all[32];
  std::memcpy(&bits, &value, sizeof(T));
  warp_exchange(bits, all);
  std::memcpy(&value, &all[lane], sizeof(T));
  return value;
}

}  // namespace on_host

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other) {
  return on_host::from_lane(mask, value, static_cast<int>(threadIdx.x % 32) ^ other);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, int distance) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return on_host::from_lane(mask, value, lane >= distance ? lane - distance : lane);
}

// Threads run one at a time, so a plain addition is atomic.
inline int atomicAdd(int* at, int value) {
  const int before = *at;
  *at = before + value;
  return before;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }

inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

struct Half {
  uint16_t bits;
};

inline Half __ushort_as_half(uint16_t bits) { return {bits}; }

inline float __half2float(Half x) {
  const unsigned sign = static_cast<unsigned>(x.bits & 0x8000u) << 16;
  const int exponent = x.bits >> 10 & 31;
  const unsigned fraction = x.bits & 0x3ffu;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                   : std::ldexp(static_cast<float>(fraction | 0x400u), exponent - 25);
  return sign != 0 ? -size : size;
}
