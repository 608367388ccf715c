// Sparse gradients, summed by their owners: each segment of a list of entries into one row.
//
// A block owns a segment (a query's active pairs, or a label's after sorting) and one slice of the
// embedding; it adds the entries in their order, so a sum is repeatable, and nobody else writes its
// place. A segment of very many entries would keep one block busy for long: aligned runs of RUN
// entries that lie within one segment are summed by blocks of their own before, and the owner adds
// the loose entries before the runs, the runs, and the loose entries after.
#include "api.h"
#include "element.h"

namespace alc {

constexpr int SUM_THREADS = 128;
constexpr int SUM_BLOCKS = 4;  // per multiprocessor: as many as the registers allow without a spill
constexpr int64_t RUN = 128;
constexpr int AHEAD = 4;  // entries whose rows are read before the first is added

struct Segments {
  const int64_t* offsets;
  const int64_t* order;
  const int64_t* row;
  const float* coefficient;
  const void* source;
  int64_t segments, num_entries, d, slices;
  float* runs;
  float* grad;
};

// Adds entries begin .. end at columns ``at`` .. ``at + STEP`` to ``sum``.
template <class E, bool ALIGNED>
__device__ __forceinline__ void add_entries(const Segments& a, int64_t begin, int64_t end,
                                            int64_t at, float* sum) {
  const auto* source = static_cast<const typename E::Raw*>(a.source);
  for (int64_t first = begin; first < end; first += AHEAD) {
    float x[AHEAD][STEP<E>], c[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      if (first + i < end) {
        const int64_t entry = a.order == nullptr ? first + i : a.order[first + i];
        c[i] = a.coefficient[entry];
        read_step<E, ALIGNED>(source + a.row[entry] * a.d, at, a.d, x[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      if (first + i < end) {
#pragma unroll
        for (int j = 0; j < STEP<E>; ++j) sum[j] = fmaf(c[i], x[i][j], sum[j]);
      }
    }
  }
}

// The segment that ``entry`` belongs to.
__device__ __forceinline__ int64_t segment_of(const Segments& a, int64_t entry) {
  int64_t low = 0, high = a.segments;  // offsets[low] <= entry < offsets[high]
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (a.offsets[middle] <= entry) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

template <class E, bool ALIGNED>
__global__ void __launch_bounds__(SUM_THREADS, SUM_BLOCKS)
    sum_runs_kernel(Segments a) {
  const int64_t num_runs = a.offsets[a.segments] / RUN;
  for (int64_t work = blockIdx.x; work < num_runs * a.slices; work += gridDim.x) {
    const int64_t run = work / a.slices, begin = run * RUN, end = begin + RUN;
    const int64_t at = (work % a.slices * SUM_THREADS + threadIdx.x) * STEP<E>;
    if (at >= a.d || begin < a.offsets[0]) continue;
    if (a.offsets[segment_of(a, begin) + 1] < end) continue;
    float sum[STEP<E>] = {};
    add_entries<E, ALIGNED>(a, begin, end, at, sum);
    for (int j = 0; j < STEP<E> && at + j < a.d; ++j) a.runs[run * a.d + at + j] = sum[j];
  }
}

template <class E, bool ALIGNED>
__global__ void __launch_bounds__(SUM_THREADS, SUM_BLOCKS)
    sum_segments_kernel(Segments a) {
  for (int64_t work = blockIdx.x; work < a.segments * a.slices; work += gridDim.x) {
    const int64_t segment = work / a.slices;
    const int64_t at = (work % a.slices * SUM_THREADS + threadIdx.x) * STEP<E>;
    const int64_t begin = a.offsets[segment], end = a.offsets[segment + 1];
    if (at >= a.d || begin >= end) continue;
    float sum[STEP<E>] = {};
    // Without a whole run everything is "before", and both of its bounds clamp to the end.
    const int64_t first_run = a.runs == nullptr ? (end + RUN - 1) / RUN : (begin + RUN - 1) / RUN;
    const int64_t last_run = end / RUN > first_run ? end / RUN : first_run;
    const int64_t before_end = first_run * RUN < end ? first_run * RUN : end;
    const int64_t after_begin = last_run * RUN < end ? last_run * RUN : end;
    // A loop over both loose parts keeps one copy of the code, and half of the registers.
#pragma unroll 1
    for (int part = 0; part < 2; ++part) {
      add_entries<E, ALIGNED>(a, part == 0 ? begin : after_begin, part == 0 ? before_end : end, at,
                              sum);
      for (int64_t run = first_run; part == 0 && run < last_run; ++run) {
        for (int j = 0; j < STEP<E>; ++j) {
          if (at + j < a.d) sum[j] += a.runs[run * a.d + at + j];
        }
      }
    }
    for (int j = 0; j < STEP<E> && at + j < a.d; ++j) a.grad[segment * a.d + at + j] += sum[j];
  }
}

}  // namespace alc

extern "C" int alc_segment_sum(const int64_t* offsets, const int64_t* order, const int64_t* row,
                               const float* coefficient, const void* source, int64_t dtype,
                               int64_t segments, int64_t num_entries, int64_t d, float* runs,
                               float* grad, void* stream) {
  using namespace alc;
  if (segments < 0 || num_entries < 0 || d < 0) return ALC_BAD_SIZE;
  if (segments == 0 || num_entries == 0 || d == 0) return 0;
  return for_dtype(dtype, source, source, d, [&](auto element, auto aligned) -> int {
    using E = decltype(element);
    constexpr bool ALIGNED = decltype(aligned)::value;
    const int64_t slice = SUM_THREADS * STEP<E>;
    const Segments a{offsets, order,       row, coefficient,           source,
                     segments, num_entries, d,   (d + slice - 1) / slice, runs, grad};
    if (runs != nullptr && num_entries >= RUN) {
      ALC_LAUNCH((sum_runs_kernel<E, ALIGNED>), blocks_for(num_entries / RUN * a.slices),
                 SUM_THREADS, 0, stream, a);
    }
    ALC_LAUNCH((sum_segments_kernel<E, ALIGNED>), blocks_for(segments * a.slices), SUM_THREADS, 0,
               stream, a);
    return cudaGetLastError();
  });
}
