// Integer products for AVX-512 VNNI: four products of bytes per instruction and 32 bits.
#include "integer.h"

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx2,fma,prefer-vector-width=512")
#endif

#define ALC_SIMD integer_avx512
#include "integer_loops.h"

namespace alc {
namespace {

constexpr int64_t kRows = 6, kVectors = kPanel / 16;

// sum += the products of bytes. By hand: compilers copy the 24 sums about when they schedule it.
#define ALC_DOT(sum, label, query) \
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(label), "v"(query))

void panel(
    const void* queries, int64_t n, const void* labels, int64_t groups, const int32_t* start,
    const float* scale, const float* threshold, float* out, uint64_t* above) {
  for (int64_t i = 0; i < n; i += kRows) {
    __m512i sum[kRows][kVectors];
#pragma GCC unroll 6
    for (int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) sum[r][v] = _mm512_set1_epi32(start[i + r]);
    }
    const char* x = static_cast<const char*>(queries) + 4 * i * groups;
    const char* y = static_cast<const char*>(labels);
    for (int64_t g = 0; g < groups; ++g, x += 4, y += 64 * kVectors) {
      const __m512i label0 = _mm512_load_si512(y), label1 = _mm512_load_si512(y + 64);
      const __m512i label2 = _mm512_load_si512(y + 128), label3 = _mm512_load_si512(y + 192);
#pragma GCC unroll 6
      for (int64_t r = 0; r < kRows; ++r) {
        int32_t group;
        __builtin_memcpy(&group, x + 4 * r * groups, 4);
        const __m512i query = _mm512_set1_epi32(group);
        ALC_DOT(sum[r][0], label0, query);
        ALC_DOT(sum[r][1], label1, query);
        ALC_DOT(sum[r][2], label2, query);
        ALC_DOT(sum[r][3], label3, query);
      }
    }
#pragma GCC unroll 6
    for (int64_t r = 0; r < kRows; ++r) {
      const __m512 least = _mm512_set1_ps(threshold[i + r]);
      uint64_t bits = 0;
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) {
        const __m512 value =
            _mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][v]), _mm512_loadu_ps(scale + 16 * v));
        _mm512_storeu_ps(out + (i + r) * kPanel + 16 * v, value);
        const uint64_t found = _mm512_cmp_ps_mask(value, least, _CMP_GT_OQ);
        bits |= found << (16 * v);
      }
      above[i + r] = bits;
    }
  }
}

}  // namespace

extern const IntegerKernels k_integer_avx512;
const IntegerKernels k_integer_avx512 = {
    "avx512-vnni", 4, kPanel, true, kRows, panel, integer_avx512::thresholds,
    integer_avx512::round_row, integer_avx512::score, integer_avx512::near};
}  // namespace alc

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
