// The active entries of listed pairs without gaps: count, scan, write.
//
// A warp owns a row: it counts the row's active entries, and, once a scan has said where the row
// begins, writes them at that place plus their rank within the row. No two threads ever want the
// same place, so there are no atomics, and the order is that of the matrix.
#include "api.h"
#include "block_scan.h"

namespace alc {

constexpr int COMPACT_THREADS = 256;
constexpr int SCAN_THREADS = 1024;
constexpr int SCAN_EACH = 4;  // rows per thread and step of the scan

// Which entries are active.
struct ListedPairs {
  const int64_t* index;
  const float* coefficient;
  int64_t num_labels;

  __device__ bool active(int64_t at) const {
    return index[at] >= 0 && index[at] < num_labels && coefficient[at] != 0.0f;  // true for NaN
  }
};

// offsets[row + 1] = active entries of the row; offsets[0] = 0.
__global__ void __launch_bounds__(COMPACT_THREADS)
    count_active_kernel(ListedPairs pairs, int64_t rows, int64_t cols, int64_t* offsets) {
  const int lane = threadIdx.x % WARP;
  const int64_t step = static_cast<int64_t>(gridDim.x) * (COMPACT_THREADS / WARP);
  int64_t row = blockIdx.x * static_cast<int64_t>(COMPACT_THREADS / WARP) + threadIdx.x / WARP;
  if (row == 0 && lane == 0) offsets[0] = 0;
  for (; row < rows; row += step) {
    int64_t count = 0;
    for (int64_t base = 0; base < cols; base += WARP) {
      const int64_t col = base + lane;
      const bool active = col < cols && pairs.active(row * cols + col);
      count += __popc(__ballot_sync(ALL_LANES, active));
    }
    if (lane == 0) offsets[row + 1] = count;
  }
}

// Turns counts[0 .. num) into running sums, in place, by one block.
__global__ void __launch_bounds__(SCAN_THREADS) scan_kernel(int64_t* counts, int64_t num) {
  ALC_SHARED(shared);
  int64_t* warp_sums = reinterpret_cast<int64_t*>(shared);
  int64_t total = 0;
  for (int64_t base = 0; base < num; base += SCAN_THREADS * SCAN_EACH) {
    const int64_t first = base + static_cast<int64_t>(threadIdx.x) * SCAN_EACH;
    int64_t each[SCAN_EACH], sum = 0;
    for (int i = 0; i < SCAN_EACH; ++i) {
      sum += first + i < num ? counts[first + i] : 0;
      each[i] = sum;
    }
    const int64_t start = total;
    const int64_t before = start + block_exclusive_sum(sum, warp_sums, &total);
    for (int i = 0; i < SCAN_EACH; ++i) {
      if (first + i < num) counts[first + i] = before + each[i];
    }
  }
}

__global__ void __launch_bounds__(COMPACT_THREADS)
    write_active_kernel(ListedPairs pairs, int64_t rows, int64_t cols, const int64_t* offsets,
                        int64_t* out_row, int64_t* out_label, float* out_value) {
  const int lane = threadIdx.x % WARP;
  const int64_t step = static_cast<int64_t>(gridDim.x) * (COMPACT_THREADS / WARP);
  int64_t row = blockIdx.x * static_cast<int64_t>(COMPACT_THREADS / WARP) + threadIdx.x / WARP;
  for (; row < rows; row += step) {
    int64_t next = offsets[row];
    const int64_t end = offsets[row + 1];
    for (int64_t base = 0; base < cols && next < end; base += WARP) {
      const int64_t col = base + lane;
      const int64_t at = row * cols + col;
      const bool active = col < cols && pairs.active(at);
      const unsigned lanes = __ballot_sync(ALL_LANES, active);
      const int64_t place = next + __popc(lanes & ((1u << lane) - 1));
      if (active) {
        out_row[place] = row;
        out_label[place] = pairs.index[at];
        out_value[place] = pairs.coefficient[at];
      }
      next += __popc(lanes);
    }
  }
}

}  // namespace alc

extern "C" int alc_compact_pairs(const int64_t* index, const float* coefficient, int64_t rows,
                                 int64_t cols, int64_t num_labels, int64_t* offsets,
                                 int64_t* out_row, int64_t* out_label, float* out_value,
                                 void* stream) {
  using namespace alc;
  if (rows < 0 || cols < 0) return ALC_BAD_SIZE;
  const ListedPairs pairs{index, coefficient, num_labels};
  constexpr int64_t warps = COMPACT_THREADS / WARP;
  const unsigned blocks = blocks_for(rows / warps + 1);
  ALC_LAUNCH(count_active_kernel, blocks, COMPACT_THREADS, 0, stream, pairs, rows, cols, offsets);
  const size_t bytes = SCAN_THREADS / WARP * sizeof(int64_t);
  ALC_LAUNCH(scan_kernel, 1, SCAN_THREADS, bytes, stream, offsets, rows + 1);
  ALC_LAUNCH(write_active_kernel, blocks, COMPACT_THREADS, 0, stream, pairs, rows, cols, offsets,
             out_row, out_label, out_value);
  return cudaGetLastError();
}
