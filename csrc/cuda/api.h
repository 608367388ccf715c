// The C interface of the CUDA kernels. No PyTorch in it: pointers into the device's memory, sizes,
// a stream (cudaStream_t). Every function queues its work and returns 0, a cudaError_t, or one of
// the negative codes below. All arrays are contiguous. alc_kernels/backends/cuda calls it.
#pragma once

#include <cstdint>

enum AlcError : int {
  ALC_BAD_DTYPE = -1,     // not one of AlcDtype
  ALC_BAD_K = -2,         // k outside 1 .. 128
  ALC_BAD_SIZE = -3,      // a size is negative or beyond what the kernel can count
  ALC_BAD_SUBTILE = -4,   // width, tile or k * width do not fit each other
  ALC_BAD_RELATION = -5,  // not one of AlcRelation
};

enum AlcDtype : int64_t { ALC_FLOAT32 = 0, ALC_FLOAT16 = 1, ALC_BFLOAT16 = 2 };

enum AlcRelation : int64_t {
  ALC_EMPTY = 0,
  ALC_DIAGONAL = 1,
  ALC_INDEX = 2,   // row (B,)
  ALC_CSR = 3,     // row (B + 1,), col ascending in each row
  ALC_RANGES = 4,  // row (B, 2), col ascending in each range
};

extern "C" {

// Counts up when a function below changes; the caller checks it.
int alc_cuda_interface();

// 0: built for the host by the tests, 1: for GPUs.
int alc_cuda_on_gpu();

// 0 where the library holds code that the current device can run, else a cudaError_t.
int alc_cuda_ready();

// A sentence for a code that a function returned.
const char* alc_cuda_message(int code);

// Of each row of S = Q K^T the k largest over what is in neither relation, from the maxima of its
// sub-tiles. See select_subtiles.cu for what a sub-tile is.
//   maxima   (rows, num_subtiles) float32, num_subtiles = ceil(num_labels / tile) * tile / width
//   queries  (rows, d), labels (num_labels, d) of ``dtype``
int alc_select_subtiles(const float* maxima, const void* queries, const void* label_rows,
                        int64_t dtype, int64_t rows, int64_t num_labels, int64_t d, int64_t tile,
                        int64_t width, int64_t positive_kind, const int64_t* positive_row,
                        const int64_t* positive_col, int64_t exclude_kind,
                        const int64_t* exclude_row, const int64_t* exclude_col, int64_t k,
                        float* scores, int64_t* labels, void* stream);

// The active entries of listed pairs, row by row and in their order, with no gap between rows: of
// index and coefficient (rows, cols) the labels in 0 .. num_labels with a coefficient that is not 0
// (NaN is not).
//   offsets   (rows + 1,): row i has entries offsets[i] .. offsets[i + 1]
//   out_row, out_label, out_value  (rows * cols,), written up to offsets[rows]
int alc_compact_pairs(const int64_t* index, const float* coefficient, int64_t rows, int64_t cols,
                      int64_t num_labels, int64_t* offsets, int64_t* out_row, int64_t* out_label,
                      float* out_value, void* stream);

// grad[s] += sum over the entries e of segment s, in their order, of coefficient[o] * source[row[o]]
// with o = order[e] (null: e). One owner per sum, float32, repeatable.
//   offsets (segments + 1,): segment s has entries offsets[s] .. offsets[s + 1] <= num_entries
//   runs    (num_entries / 128, d) float32 workspace; null where no segment is long
int alc_segment_sum(const int64_t* offsets, const int64_t* order, const int64_t* row,
                    const float* coefficient, const void* source, int64_t dtype, int64_t segments,
                    int64_t num_entries, int64_t d, float* runs, float* grad, void* stream);

}  // extern "C"
