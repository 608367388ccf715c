// Integer products in plain C++.
#include "integer.h"

#define ALC_SIMD integer_baseline
#include "integer_loops.h"

namespace alc {
namespace {

constexpr int64_t kWidth = 16;

void panel(
    const void* queries, int64_t n, const void* labels, int64_t groups, const int32_t* start,
    const float* scale, const float* threshold, float* out, uint64_t* above) {
  for (int64_t i = 0; i < n; ++i) {
    above[i] = 0;
    const int16_t* x = static_cast<const int16_t*>(queries) + 2 * i * groups;
    for (int64_t part = 0; part < kPanel; part += kWidth) {
      const int16_t* y = static_cast<const int16_t*>(labels) + part * groups * 2;
      int32_t sum[kWidth];
      for (int64_t j = 0; j < kWidth; ++j) sum[j] = start[i];
      for (int64_t g = 0; g < groups; ++g, y += 2 * kWidth)
        for (int64_t j = 0; j < kWidth; ++j)
          sum[j] += x[2 * g] * y[2 * j] + x[2 * g + 1] * y[2 * j + 1];
      for (int64_t j = 0; j < kWidth; ++j) {
        const float value = static_cast<float>(sum[j]) * scale[part + j];
        out[i * kPanel + part + j] = value;
        above[i] |= static_cast<uint64_t>(value > threshold[i]) << (part + j);
      }
    }
  }
}

}  // namespace

extern const IntegerKernels k_integer_baseline;
const IntegerKernels k_integer_baseline = {
    "baseline", 2, kWidth, false, 1, panel, integer_baseline::thresholds,
    integer_baseline::round_row, integer_baseline::score, integer_baseline::near};
}  // namespace alc
