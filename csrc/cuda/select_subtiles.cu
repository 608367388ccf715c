// The k hardest of each row from sub-tile maxima.
//
// A walk over S with a list in its hot loop pays for the list in nearly every tile. This one leaves
// only the maximum of each sub-tile of ``width`` columns, which is what it computes on the way to
// the tile's maximum anyway (in Triton's PTX for sm_90: as many comparisons, and no more exchanges,
// than in a walk without them). The k best sub-tiles of a row, by maximum and then by smallest label,
// hold its k largest elements: an element outside of them is beaten by k maxima. Their k * width
// similarities are computed again here, and the k best of those are the answer.
//
// Sub-tiles. The matrix units leave a row of a tile with four threads, thread q holding columns
// 8 g + 2 q and 8 g + 2 q + 1. A sub-tile is what one thread holds of 4 * width neighbouring
// columns, so that its maximum needs no exchange between threads. Sub-tile n of a row: tile
// n / (tile / width), group and q the quotient and remainder of the rest by 4, columns
//     tile * T + group * 4 width + 8 (j / 2) + 2 q + j % 2,    j = 0 .. width - 1.
// The four sub-tiles of a group interleave. Where maxima tie at the k-th place, the tied sub-tiles
// of that group are kept as well (at most three more): their labels may be the smaller ones. Tied
// sub-tiles of later groups hold larger labels only.
//
// Bytes. Per row k width d items of labels are gathered, from the L2 cache while K fits it, and
// 8 M / width bytes of maxima are written and read. Both are least at
// width = sqrt(8 M / (k d item)): 4 at M = 32,768, d = 768, bf16, k = 10, and 2 at k = 100
// (alc_kernels/backends/cuda/subtiles.py chooses). Beside a product at 989 TFLOP/s, with
// 5.5 TB/s from the L2 cache and 4 from memory, the model says 0.35 of it for k = 10 and 1.1 for
// k = 100. These are estimates; nothing is measured yet.
//
// Rounding. Products of half precision numbers are exact in float32; the order of the sum is not
// the matrix units'. A score may differ from the walk's by about d 2^-24 sum_c |q_c k_c| (5e-5 at
// most for unit rows and d = 768, typically 1e-7), and so may a label where two scores are that
// close. Where sums are exact, ties included, the result is the walk's.
#include "api.h"
#include "element.h"
#include "relation.h"
#include "top_keys.h"

namespace alc {

constexpr int GROUP = 4;      // sub-tiles that interleave
constexpr int TOGETHER = 4;   // similarities that a warp computes at the same time
constexpr int MAX_D = 32768;  // the query lies in shared memory as float32

struct Subtiles {
  const float* maxima;
  const void* queries;
  const void* label_rows;
  int64_t rows, num_labels, d, tile, width, per_row;
  Relation positives, exclude;
  int k;
  float* scores;
  int64_t* labels;
};

struct Maxima {
  const float* row;
  __device__ Key operator()(int64_t i) const {
    return make_key(row[i], static_cast<unsigned>(i));
  }
};

// Label of element j of sub-tile n.
__device__ __forceinline__ int64_t subtile_label(const Subtiles& a, unsigned n, int j) {
  const int64_t per_tile = a.tile / a.width;
  const int64_t tile = n / per_tile, within = n - tile * per_tile;
  const int64_t group = within / GROUP, thread = within % GROUP;
  return tile * a.tile + group * GROUP * a.width + j / 2 * 8 + thread * 2 + j % 2;
}

// How many of the sub-tiles in keys, k + 3 at most, have to be looked into.
__device__ __forceinline__ int needed_subtiles(const Key* keys, int found, int k) {
  if (found <= k) return found;
  const Key last = keys[k - 1];
  int needed = k;
  while (needed < found && keys[needed] >> 32 == last >> 32 &&
         key_label(keys[needed]) / GROUP == key_label(last) / GROUP) {
    ++needed;
  }
  return needed;
}

// Scores of ``TOGETHER`` label rows with the query, the same in every lane.
template <class E, bool ALIGNED>
__device__ __forceinline__ void warp_scores(const float* query, const typename E::Raw* const* rows,
                                            int64_t d, float* sums) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int i = 0; i < TOGETHER; ++i) sums[i] = 0.0f;
  for (int64_t at = lane * STEP<E>; at < d; at += WARP * STEP<E>) {
    float x[TOGETHER][STEP<E>];
#pragma unroll
    for (int i = 0; i < TOGETHER; ++i) read_step<E, ALIGNED>(rows[i], at, d, x[i]);
#pragma unroll
    for (int c = 0; c < STEP<E>; ++c) {
      const float q = query[at + c];
#pragma unroll
      for (int i = 0; i < TOGETHER; ++i) sums[i] = fmaf(q, x[i][c], sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < TOGETHER; ++i) {
#pragma unroll
    for (int far = WARP / 2; far > 0; far /= 2) {
      sums[i] += __shfl_xor_sync(ALL_LANES, sums[i], far);
    }
  }
}

// The similarities of the chosen sub-tiles of one row, as keys.
template <class E, bool ALIGNED>
__device__ void score_subtiles(const Subtiles& a, int64_t row, const float* query,
                               const unsigned* chosen, int num, Key* keys) {
  const auto* label_rows = static_cast<const typename E::Raw*>(a.label_rows);
  const Relation::Row positives = a.positives.of(row), exclude = a.exclude.of(row);
  const int lane = threadIdx.x % WARP;
  const int width = static_cast<int>(a.width), total = num * width;
  for (int first = threadIdx.x / WARP * TOGETHER; first < total;
       first += SELECT_THREADS / WARP * TOGETHER) {
    int64_t label[TOGETHER];
    const typename E::Raw* rows[TOGETHER];
#pragma unroll
    for (int i = 0; i < TOGETHER; ++i) {
      const int at = first + i < total ? first + i : total - 1;
      label[i] = subtile_label(a, chosen[at / width], at % width);
      // What lies past the last label is read as the last one, and dropped.
      rows[i] = label_rows + (label[i] < a.num_labels ? label[i] : a.num_labels - 1) * a.d;
    }
    float sums[TOGETHER];
    warp_scores<E, ALIGNED>(query, rows, a.d, sums);
#pragma unroll
    for (int i = 0; i < TOGETHER; ++i) {
      if (lane != i || first + i >= total) continue;
      const bool negative = label[i] < a.num_labels && !positives.holds(label[i]) &&
                            !exclude.holds(label[i]);
      keys[first + i] =
          negative ? make_key(sums[i], static_cast<unsigned>(label[i])) : NO_KEY;
    }
  }
}

template <class E, bool ALIGNED>
__global__ void __launch_bounds__(SELECT_THREADS) select_subtiles_kernel(Subtiles a) {
  ALC_SHARED(shared);
  Key* keys = reinterpret_cast<Key*>(shared);
  unsigned* chosen = reinterpret_cast<unsigned*>(keys + CAPACITY);
  int* count = reinterpret_cast<int*>(chosen + MAX_K + GROUP - 1);
  float* query = reinterpret_cast<float*>(count + 1);  // MAX_K + GROUP: again at 16 bytes
  const auto* queries = static_cast<const typename E::Raw*>(a.queries);
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    // Zeros up to a whole step, where rows that are not aligned read zeros as well.
    const int64_t padded = (a.d + STEP<E> - 1) / STEP<E> * STEP<E>;
    for (int64_t c = threadIdx.x; c < padded; c += SELECT_THREADS) {
      query[c] = c < a.d ? E::widen(queries[row * a.d + c]) : 0.0f;
    }
    const Maxima maxima{a.maxima + row * a.per_row};
    int found = top_keys(maxima, a.per_row, a.k + GROUP - 1, keys, count);
    found = needed_subtiles(keys, found, a.k);
    for (int i = threadIdx.x; i < found; i += SELECT_THREADS) chosen[i] = key_label(keys[i]);
    __syncthreads();
    score_subtiles<E, ALIGNED>(a, row, query, chosen, found, keys);
    const int total = found * static_cast<int>(a.width);
    block_sort(keys, total);
    write_top(keys, total < a.k ? total : a.k, a.k, row, a.scores, a.labels);
    __syncthreads();
  }
}

}  // namespace alc

extern "C" int alc_select_subtiles(const float* maxima, const void* queries, const void* label_rows,
                                   int64_t dtype, int64_t rows, int64_t num_labels, int64_t d,
                                   int64_t tile, int64_t width, int64_t positive_kind,
                                   const int64_t* positive_row, const int64_t* positive_col,
                                   int64_t exclude_kind, const int64_t* exclude_row,
                                   const int64_t* exclude_col, int64_t k, float* scores,
                                   int64_t* labels, void* stream) {
  using namespace alc;
  if (k < 1 || k > MAX_K) return ALC_BAD_K;
  if (rows < 0 || num_labels < 1 || num_labels >= 0x7fffffffll) return ALC_BAD_SIZE;
  if (d < 0 || d > MAX_D) return ALC_BAD_SIZE;
  if (width < 2 || width % 2 != 0 || tile < 1 || tile % (GROUP * width) != 0) {
    return ALC_BAD_SUBTILE;
  }
  if ((k + GROUP - 1) * width > CAPACITY) return ALC_BAD_SUBTILE;
  for (const int64_t kind : {positive_kind, exclude_kind}) {
    if (kind < ALC_EMPTY || kind > ALC_RANGES) return ALC_BAD_RELATION;
  }
  if (rows == 0) return 0;
  Subtiles a{maxima, queries, label_rows, rows, num_labels, d, tile, width, 0,
             {positive_kind, positive_row, positive_col},
             {exclude_kind, exclude_row, exclude_col},
             static_cast<int>(k), scores, labels};
  a.per_row = (num_labels + tile - 1) / tile * (tile / width);
  return for_dtype(dtype, queries, label_rows, d, [&](auto element, auto aligned) -> int {
    using E = decltype(element);
    constexpr bool ALIGNED = decltype(aligned)::value;
    const size_t padded = static_cast<size_t>((d + STEP<E> - 1) / STEP<E> * STEP<E>);
    const size_t bytes = CAPACITY * sizeof(Key) + (MAX_K + GROUP) * sizeof(unsigned) +
                         padded * sizeof(float);
    const auto kernel = select_subtiles_kernel<E, ALIGNED>;
    if (bytes > DEFAULT_SHARED) {
      const cudaError_t error = cudaFuncSetAttribute(
          reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
          static_cast<int>(bytes));
      if (error != cudaSuccess) return error;
    }
    ALC_LAUNCH(kernel, blocks_for(rows), SELECT_THREADS, bytes, stream, a);
    return cudaGetLastError();
  });
}
