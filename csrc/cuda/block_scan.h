// Running sums over the threads of a block.
#pragma once

#include "device.h"

namespace alc {

// Sum of ``value`` over the lanes before this one.
__device__ __forceinline__ int64_t warp_exclusive_sum(int64_t value) {
  const int lane = threadIdx.x % WARP;
  int64_t sum = value;
  for (int far = 1; far < WARP; far *= 2) {
    const int64_t before = __shfl_up_sync(ALL_LANES, sum, far);
    if (lane >= far) sum += before;
  }
  return sum - value;
}

// Sum of ``value`` over the threads before this one; adds the sum over all threads to ``total``.
// ``warp_sums``: shared memory for blockDim.x / 32 numbers.
__device__ inline int64_t block_exclusive_sum(int64_t value, int64_t* warp_sums, int64_t* total) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int warps = blockDim.x / WARP;
  const int64_t before = warp_exclusive_sum(value);
  if (lane == WARP - 1) warp_sums[warp] = before + value;
  __syncthreads();
  int64_t start = 0, all = 0;
  for (int i = 0; i < warps; ++i) {
    if (i < warp) start += warp_sums[i];
    all += warp_sums[i];
  }
  __syncthreads();
  *total += all;
  return start + before;
}

}  // namespace alc
