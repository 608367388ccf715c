// What PyTorch lends: its threads and its matrix products, as C functions handed over at load.
//
// The library includes no header of PyTorch and links against none of its parts, so that one build
// serves every release that has these functions; and it brings no second OpenMP and no second BLAS.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace alc {

// Declared as in torch/csrc/inductor/aoti_torch/c/shim.h and torch/csrc/stable/c/shim.h; each
// returns 0 where it worked. alc_kernels/backends/native/library.py fills this in.
struct Host {
  int32_t (*parallel_for)(
      int64_t begin, int64_t end, int64_t grain, void (*run)(int64_t, int64_t, void*), void* with);
  int32_t (*get_num_threads)(uint32_t* count);
  int32_t (*create_tensor_from_blob)(
      void* data, int64_t dim, const int64_t* sizes, const int64_t* strides, int64_t offset,
      int32_t dtype, int32_t device_type, int32_t device_index, void** made);
  int32_t (*delete_tensor_object)(void* tensor);
  int32_t (*mm_out)(void* out, void* a, void* b);
  int32_t (*addmm_out)(void* out, void* self, void* a, void* b, double beta, double alpha);
};
extern Host host;

inline void check_host(int32_t code, const char* what) {
  if (code != 0) throw std::runtime_error(std::string("PyTorch could not ") + what);
}

inline int64_t num_threads() {
  uint32_t count = 1;
  check_host(host.get_num_threads(&count), "tell its number of threads");
  return count;
}

inline int64_t blocks_of(int64_t size, int64_t block) { return (size + block - 1) / block; }
inline int64_t round_up(int64_t size, int64_t unit) { return blocks_of(size, unit) * unit; }

// Work in numbered blocks: calls work(number, scratch) for every number in [0, count), each once, by
// whichever thread of PyTorch's pool is free; scratch = make_scratch() once per thread. What a block
// computes must not depend on the thread: then neither do results.
template <typename MakeScratch, typename Work>
void for_each_block(int64_t count, const MakeScratch& make_scratch, const Work& work) {
  if (count <= 0) return;
  struct Shared {
    const MakeScratch& make_scratch;
    const Work& work;
    int64_t count;
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::string error = "out of memory";  // what it says: no exception may pass through PyTorch
  } shared{make_scratch, work, count};
  const auto run = [](int64_t, int64_t, void* with) {
    Shared& own = *static_cast<Shared*>(with);
    try {
      auto scratch = own.make_scratch();
      for (int64_t number = own.next++; number < own.count; number = own.next++)
        own.work(number, scratch);
    } catch (const std::bad_alloc&) {
      own.failed = true;
    } catch (const std::exception& error) {
      if (!own.failed.exchange(true)) own.error = error.what();
    }
  };
  const int64_t threads = std::min(num_threads(), count);
  if (threads == 1)
    run(0, 1, &shared);
  else
    check_host(host.parallel_for(0, threads, 1, run, &shared), "run threads");
  if (shared.failed) throw std::runtime_error(shared.error);
}

struct NoScratch {};

template <typename Work>
void for_each_block(int64_t count, const Work& work) {
  for_each_block(count, [] { return NoScratch{}; }, [&](int64_t number, NoScratch&) { work(number); });
}

// A matrix where it lies, for the products below; on one thread inside a parallel region.
template <typename T>
class Matrix {
 public:
  Matrix(const T* data, int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride = 1) {
    constexpr int32_t dtype = std::is_same_v<T, double> ? 7 : 6;  // as PyTorch numbers them
    const int64_t sizes[] = {rows, cols}, strides[] = {row_stride, col_stride};
    check_host(
        host.create_tensor_from_blob(
            const_cast<T*>(data), 2, sizes, strides, 0, dtype, /*CPU*/ 0, 0, &tensor_),
        "take a matrix");
  }
  Matrix(const Matrix&) = delete;
  ~Matrix() { host.delete_tensor_object(tensor_); }

  // this <- a b, or where `add` this += a b
  void product(const Matrix& a, const Matrix& b, bool add) const {
    check_host(
        add ? host.addmm_out(tensor_, tensor_, a.tensor_, b.tensor_, 1, 1)
            : host.mm_out(tensor_, a.tensor_, b.tensor_),
        "multiply");
  }

 private:
  void* tensor_ = nullptr;
};

}  // namespace alc
