// The k best of any number of candidates, by one block, exactly.
//
// Candidates stream through a buffer in shared memory. A threshold, the k-th best seen so far, keeps
// nearly all of them out; when the buffer could overflow it is sorted, cut to k and the threshold
// raised. Candidates in the worst possible order cost time, never a result. Before the stream each
// thread's best candidate gives a first threshold: k different candidates reach it.
//
// Keys differ (they hold the label), so the order in which threads append does not matter.
#pragma once

#include "block_sort.h"

namespace alc {

constexpr int SELECT_THREADS = 256;
constexpr int MAX_K = 128;     // of one row; <= SELECT_THREADS
constexpr int CAPACITY = 2048;  // keys in the buffer, 16 KiB
constexpr int PER_THREAD = 4;   // candidates that a thread reads at a time
constexpr int ROUND = SELECT_THREADS * PER_THREAD;  // at most these are added between two looks

// Shared memory: ``keys`` CAPACITY, ``count`` one int. Candidate(i) gives the key of candidate i <
// num. Leaves the best in keys[0 ..), descending; returns how many there are, at most k.
template <class Candidate>
__device__ int top_keys(const Candidate& candidate, int64_t num, int k, Key* keys, int* count) {
  const int thread = threadIdx.x;
  Key threshold = NO_KEY + 1;
  if (num > ROUND) {
    Key best = NO_KEY;
#pragma unroll 4
    for (int64_t i = thread; i < num; i += SELECT_THREADS) {
      const Key key = candidate(i);
      best = key > best ? key : best;
    }
    keys[thread] = best;
    block_sort(keys, SELECT_THREADS);
    threshold = keys[k - 1] > threshold ? keys[k - 1] : threshold;
  }
  __syncthreads();
  if (thread == 0) *count = 0;
  __syncthreads();
  for (int64_t base = 0; base < num; base += ROUND) {
    Key found[PER_THREAD];
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
      const int64_t at = base + i * SELECT_THREADS + thread;
      found[i] = at < num ? candidate(at) : NO_KEY;
    }
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
      if (found[i] >= threshold) keys[atomicAdd(count, 1)] = found[i];
    }
    __syncthreads();
    const int filled = *count;
    __syncthreads();
    if (filled > CAPACITY - ROUND) {
      block_sort(keys, filled);
      // filled > k: the threshold itself stays in the buffer, only better ones may join.
      threshold = keys[k - 1] + 1;
      if (thread == 0) *count = k;
      __syncthreads();
    }
  }
  const int filled = *count;
  block_sort(keys, filled);
  return filled < k ? filled : k;
}

// Row ``row`` of the results: (k,) scores and labels, -inf and -1 where there are no more.
__device__ inline void write_top(const Key* keys, int found, int k, int64_t row, float* scores,
                                 int64_t* labels) {
  for (int rank = threadIdx.x; rank < k; rank += blockDim.x) {
    const bool here = rank < found && keys[rank] != NO_KEY;
    scores[row * k + rank] = here ? key_value(keys[rank]) : -INFINITY;
    labels[row * k + rank] = here ? static_cast<int64_t>(key_label(keys[rank])) : -1;
  }
}

}  // namespace alc
