// Integer products for AVX2: bytes widened to int16, two products per instruction and 32 bits.
// (Those of bytes saturate.)
#include "integer.h"

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define ALC_SIMD integer_avx2
#include "integer_loops.h"

namespace alc {
namespace {

constexpr int64_t kRows = 6, kVectors = 2, kWidth = 8 * kVectors;

// sum += the products, added in pairs. By hand: compilers keep the 12 sums in memory to schedule it.
#define ALC_DOT(sum, label, query)                                   \
  {                                                                  \
    __m256i product;                                                 \
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"               \
            : "+x"(sum), "=&x"(product) : "x"(label), "x"(query));   \
  }

void panel(
    const void* queries, int64_t n, const void* labels, int64_t groups, const int32_t* start,
    const float* scale, const float* threshold, float* out, uint64_t* above) {
  for (int64_t i = 0; i < n; ++i) above[i] = 0;
  for (int64_t part = 0; part < kPanel / kWidth; ++part) {
    const char* first = static_cast<const char*>(labels) + part * groups * kWidth * 4;
    for (int64_t i = 0; i < n; i += kRows) {
      __m256i sum[kRows][kVectors];
#pragma GCC unroll 6
      for (int64_t r = 0; r < kRows; ++r)
        sum[r][0] = sum[r][1] = _mm256_set1_epi32(start[i + r]);
      const char* x = static_cast<const char*>(queries) + 4 * i * groups;
      const char* y = first;
      for (int64_t g = 0; g < groups; ++g, x += 4, y += 32 * kVectors) {
        const __m256i label0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(y));
        const __m256i label1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(y + 32));
#pragma GCC unroll 6
        for (int64_t r = 0; r < kRows; ++r) {
          int32_t group;
          __builtin_memcpy(&group, x + 4 * r * groups, 4);
          const __m256i query = _mm256_set1_epi32(group);
          ALC_DOT(sum[r][0], label0, query);
          ALC_DOT(sum[r][1], label1, query);
        }
      }
#pragma GCC unroll 6
      for (int64_t r = 0; r < kRows; ++r) {
        const __m256 least = _mm256_set1_ps(threshold[i + r]);
#pragma GCC unroll 2
        for (int64_t v = 0; v < kVectors; ++v) {
          const int64_t column = part * kWidth + 8 * v;
          const __m256 value =
              _mm256_mul_ps(_mm256_cvtepi32_ps(sum[r][v]), _mm256_loadu_ps(scale + column));
          _mm256_storeu_ps(out + (i + r) * kPanel + column, value);
          const auto found = static_cast<uint32_t>(
              _mm256_movemask_ps(_mm256_cmp_ps(value, least, _CMP_GT_OQ)));
          above[i + r] |= static_cast<uint64_t>(found) << column;
        }
      }
    }
  }
}

}  // namespace

extern const IntegerKernels k_integer_avx2;
const IntegerKernels k_integer_avx2 = {
    "avx2", 2, kWidth, false, kRows, panel, integer_avx2::thresholds, integer_avx2::round_row,
    integer_avx2::score, integer_avx2::near};
}  // namespace alc

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
