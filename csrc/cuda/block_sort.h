// Sorting keys in shared memory by one block: bitonic, descending.
#pragma once

#include "key.h"

namespace alc {

// A power of two >= n, at least 2.
__device__ __forceinline__ int padded_size(int n) {
  int size = 2;
  while (size < n) size *= 2;
  return size;
}

// Sorts keys[0 .. count) in place; overwrites keys[count .. padded_size(count)) with NO_KEY. Every
// thread of the block calls it; it begins and ends with a barrier.
//
// Pairs are dealt so that a warp's 32 lie within 64 neighbours while the stride is at most 32: in
// those steps, most of them, warps need not wait for each other.
__device__ inline void block_sort(Key* keys, int count) {
  const int size = padded_size(count);
  for (int i = count + static_cast<int>(threadIdx.x); i < size; i += blockDim.x) keys[i] = NO_KEY;
  __syncthreads();
  for (int run = 2; run <= size; run *= 2) {
    for (int stride = run / 2; stride > 0; stride /= 2) {
      for (int pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
        const int low = 2 * pair - (pair & (stride - 1));
        const int high = low + stride;
        const Key a = keys[low], b = keys[high];
        if ((a < b) == ((low & run) == 0)) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      const int next = stride > 1 ? stride / 2 : run;
      if (stride > 32 || next > 32) {
        __syncthreads();
      } else {
        __syncwarp();
      }
    }
  }
  __syncthreads();
}

}  // namespace alc
