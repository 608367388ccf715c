// What a kernel's source needs from its compiler: CUDA's own, or, for tests on a machine without
// a GPU, tests/native/cuda_host, which runs the same source on the host.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef ALC_ON_HOST
#include "cuda_on_host.h"
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define ALC_LAUNCH(kernel, blocks, threads, bytes, stream, ...) \
  kernel<<<blocks, threads, bytes, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#define ALC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace alc {

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// Bytes of shared memory that a block has without asking for more.
constexpr size_t DEFAULT_SHARED = 48 << 10;

#ifdef ALC_ON_HOST
constexpr int64_t MOST_BLOCKS = 3;  // so that tests go through the strides
#else
constexpr int64_t MOST_BLOCKS = 1 << 20;  // enough for any GPU, within every limit
#endif

// Blocks of a launch whose kernel strides over its work.
inline unsigned blocks_for(int64_t work) {
  return static_cast<unsigned>(work < MOST_BLOCKS ? work : MOST_BLOCKS);
}

}  // namespace alc
