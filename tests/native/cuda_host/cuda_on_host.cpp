// See cuda_on_host.h. One fiber per thread of a block, which runs until it waits.
#include "cuda_on_host.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr size_t STACK = 128 << 10;
constexpr size_t GUARD = 64 << 10;  // behind a block's shared memory
constexpr int DEADLOCK = 719, BAD_LAUNCH = 9, OUT_OF_BOUNDS = 700;
enum class State { READY, AT_BARRIER, AT_EXCHANGE, DONE };

struct Fiber {
  State state = State::READY;
  bool started = false;
  std::unique_ptr<char[]> stack;
  ucontext_t first;
  jmp_buf resume;
  uint64_t given = 0;
  uint64_t taken[32];
};

std::vector<Fiber> fibers(1024);
const std::function<void()>* body = nullptr;
unsigned current = 0;
jmp_buf scheduler;
std::vector<unsigned char> shared;
int last_error = 0;
long order_seed = 0;  // 0 ascending, -1 descending, others shuffle
std::mt19937 random_numbers;

void wait(State state) {
  Fiber& fiber = fibers[current];
  fiber.state = state;
  if (_setjmp(fiber.resume) == 0) _longjmp(scheduler, 1);
}

// A fiber outlives its block: starting one costs more than going on with it.
void run_blocks() {
  for (;;) {
    (*body)();
    wait(State::DONE);
  }
}

void run(unsigned number) {
  current = number;
  threadIdx.x = number;
  Fiber& fiber = fibers[number];
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.resume, 1);
  fiber.started = true;
  if (!fiber.stack) fiber.stack = std::make_unique<char[]>(STACK);
  getcontext(&fiber.first);
  fiber.first.uc_stack.ss_sp = fiber.stack.get();
  fiber.first.uc_stack.ss_size = STACK;
  fiber.first.uc_link = nullptr;
  makecontext(&fiber.first, run_blocks, 0);
  setcontext(&fiber.first);
}

void arrange(std::vector<unsigned>& numbers) {
  if (order_seed > 0) std::shuffle(numbers.begin(), numbers.end(), random_numbers);
}

std::vector<unsigned> numbers_to(unsigned count) {
  std::vector<unsigned> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0u);
  if (order_seed < 0) std::reverse(numbers.begin(), numbers.end());
  return numbers;
}

bool all_are(State state, unsigned first, unsigned last) {
  const auto is = [state](const Fiber& fiber) { return fiber.state == state; };
  return std::all_of(fibers.begin() + first, fibers.begin() + last, is);
}

// Lets a warp go on until all of it waits for other warps, or for ``steps`` exchanges.
void run_warp(unsigned warp, unsigned steps) {
  const unsigned first = 32 * warp, last = first + 32;
  for (unsigned step = 0; step < steps; ++step) {
    std::vector<unsigned> lanes = numbers_to(32);
    arrange(lanes);
    for (unsigned lane : lanes) {
      if (fibers[first + lane].state == State::READY) run(first + lane);
    }
    if (!all_are(State::AT_EXCHANGE, first, last)) return;
    for (unsigned i = first; i < last; ++i) {
      for (unsigned j = 0; j < 32; ++j) fibers[i].taken[j] = fibers[first + j].given;
    }
    for (unsigned i = first; i < last; ++i) fibers[i].state = State::READY;
  }
}

// False: what is left waits for threads that never come. Warps run as far ahead of each other as
// barriers let them, or, shuffled, a few steps at a time.
bool run_block(unsigned threads) {
  std::vector<unsigned> warps = numbers_to(threads / 32);
  for (unsigned i = 0; i < threads; ++i) fibers[i].state = State::READY;
  for (;;) {
    arrange(warps);
    for (unsigned warp : warps) run_warp(warp, order_seed > 0 ? 1 + random_numbers() % 8 : ~0u);
    if (all_are(State::DONE, 0, threads)) return true;
    const auto ready = [](const Fiber& fiber) { return fiber.state == State::READY; };
    if (std::any_of(fibers.begin(), fibers.begin() + threads, ready)) continue;
    if (!all_are(State::AT_BARRIER, 0, threads)) return false;
    for (unsigned i = 0; i < threads; ++i) fibers[i].state = State::READY;
  }
}

}  // namespace

namespace on_host {

void launch(const std::function<void()>& kernel, unsigned blocks, unsigned threads, size_t bytes) {
  if (blocks == 0 || threads == 0 || threads > 1024 || threads % 32 != 0 ||
      bytes > ON_HOST_SHARED_LIMIT) {
    last_error = BAD_LAUNCH;
    return;
  }
  body = &kernel;
  blockDim = {threads, 1, 1};
  gridDim = {blocks, 1, 1};
  shared.resize(bytes + 16 + GUARD);
  random_numbers.seed(static_cast<unsigned>(order_seed));
  std::vector<unsigned> numbers = numbers_to(blocks);
  arrange(numbers);
  for (unsigned block : numbers) {
    blockIdx.x = block;
    // NaN as floats, the best as keys: nothing may be read before it is written.
    std::fill(shared.begin(), shared.end(), 0xff);
    if (!run_block(threads)) {
      last_error = DEADLOCK;
      for (Fiber& fiber : fibers) fiber.started = false;
      return;
    }
    const unsigned char* end = shared_memory() + bytes;
    if (std::any_of(end, end + GUARD, [](unsigned char x) { return x != 0xff; })) {
      last_error = OUT_OF_BOUNDS;
      return;
    }
  }
}

unsigned char* shared_memory() {
  const auto address = reinterpret_cast<uintptr_t>(shared.data());
  return shared.data() + (16 - address % 16) % 16;
}

void block_barrier() { wait(State::AT_BARRIER); }

void warp_exchange(uint64_t mine, uint64_t* all) {
  Fiber& fiber = fibers[current];
  fiber.given = mine;
  wait(State::AT_EXCHANGE);
  std::copy(fiber.taken, fiber.taken + 32, all);
}

}  // namespace on_host

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = 0;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case DEADLOCK:
      return "threads wait for others that never come";
    case OUT_OF_BOUNDS:
      return "a write beyond the block's shared memory";
    case BAD_LAUNCH:
      return "invalid launch: blocks, threads or shared memory";
    default:
      return "an error of the emulation";
  }
}

extern "C" void on_host_order(long seed) { order_seed = seed; }
