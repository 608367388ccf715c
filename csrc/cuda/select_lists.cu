// The k best of a row's lists, one list per split of the columns.
#include "api.h"
#include "top_keys.h"

namespace alc {

// Entry i of a row's lists as a key.
struct ListEntries {
  const float* values;  // of this row
  const int32_t* index;
  const int32_t* counts;
  int64_t plane;        // entries of one split
  int64_t count_plane;  // counts of one split
  int64_t slots, width;

  __device__ Key operator()(int64_t i) const {
    const int64_t split = i / slots, slot = i - split * slots;
    if (counts != nullptr && slot >= counts[split * count_plane]) return NO_KEY;
    const int64_t at = split * plane + slot;
    const int32_t column = index[at];
    if (column < 0) return NO_KEY;
    return make_key(values[at], static_cast<unsigned>(column + split * width));
  }
};

__global__ void __launch_bounds__(SELECT_THREADS)
    select_lists_kernel(const float* values, const int32_t* index, const int32_t* counts,
                        int64_t rows, int64_t splits, int64_t slots, int64_t width, int k,
                        float* scores, int64_t* labels) {
  ALC_SHARED(shared);
  Key* keys = reinterpret_cast<Key*>(shared);
  int* count = reinterpret_cast<int*>(keys + CAPACITY);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const ListEntries entries{values + row * slots,
                              index + row * slots,
                              counts == nullptr ? nullptr : counts + row,
                              rows * slots,
                              rows,
                              slots,
                              width};
    const int found = top_keys(entries, splits * slots, k, keys, count);
    write_top(keys, found, k, row, scores, labels);
    __syncthreads();
  }
}

}  // namespace alc

extern "C" int alc_select_lists(const float* values, const int32_t* index, const int32_t* counts,
                                int64_t rows, int64_t splits, int64_t slots, int64_t width,
                                int64_t k, float* scores, int64_t* labels, void* stream) {
  using namespace alc;
  if (k < 1 || k > MAX_K) return ALC_BAD_K;
  if (rows < 0 || splits < 0 || slots < 0 || width < 0) return ALC_BAD_SIZE;
  if (splits * width >= 0xffffffffll + width) return ALC_BAD_SIZE;
  if (rows == 0) return 0;
  const size_t bytes = CAPACITY * sizeof(Key) + sizeof(int);
  ALC_LAUNCH(select_lists_kernel, blocks_for(rows), SELECT_THREADS, bytes, stream, values, index,
             counts, rows, splits, slots, width, static_cast<int>(k), scores, labels);
  return cudaGetLastError();
}
