// Work in numbered blocks over the threads of PyTorch's pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>

namespace alc {

// Calls work(number, scratch) for every number in [0, count), each once, by whichever thread is
// free; scratch = make_scratch() once per thread. What a block computes must not depend on the
// thread: then neither do results.
template <typename MakeScratch, typename Work>
void for_each_block(int64_t count, const MakeScratch& make_scratch, const Work& work) {
  if (count <= 0) return;
  std::atomic<int64_t> next{0};
  const auto run = [&](int64_t, int64_t) {
    // The pool's threads do not inherit this state from the caller.
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto scratch = make_scratch();
    for (int64_t number = next++; number < count; number = next++) work(number, scratch);
  };
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), count);
  if (threads == 1) {
    run(0, 1);
  } else {
    at::parallel_for(0, threads, 1, run);
  }
}

struct NoScratch {};

template <typename Work>
void for_each_block(int64_t count, const Work& work) {
  for_each_block(count, [] { return NoScratch{}; }, [&](int64_t number, NoScratch&) { work(number); });
}

inline int64_t blocks_of(int64_t size, int64_t block) { return (size + block - 1) / block; }
inline int64_t round_up(int64_t size, int64_t unit) { return blocks_of(size, unit) * unit; }

}  // namespace alc
