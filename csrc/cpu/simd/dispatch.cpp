// Which instruction set runs, decided once. ALC_KERNELS_SIMD=baseline|avx2|avx512 lowers it.
#include <cstdlib>
#include <cstring>

#include "../element.h"
#include "context.h"
#include "integer.h"
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace alc {

extern const Kernels<float> k_baseline_float, k_avx2_float, k_avx512_float;
extern const Kernels<double> k_baseline_double, k_avx2_double, k_avx512_double;
extern const IntegerKernels k_integer_baseline, k_integer_avx2, k_integer_avx512;
extern const ContextKernels<float> k_baseline_context_float, k_avx2_context_float,
    k_avx512_context_float;
extern const ContextKernels<double> k_baseline_context_double, k_avx2_context_double,
    k_avx512_context_double;

namespace {

int level() {
#if defined(__x86_64__)
  int found = 0;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c"))
    found = 1;
  if (found == 1 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    found = 2;
  if (const char* asked = std::getenv("ALC_KERNELS_SIMD")) {
    const int most = std::strcmp(asked, "baseline") == 0 ? 0 : std::strcmp(asked, "avx2") == 0 ? 1 : 2;
    found = found < most ? found : most;
  }
  return found;
#else
  return 0;
#endif
}

void from_half_plain(const uint16_t* x, float* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = Half{x[j]}.value();
}
void to_half_plain(const float* x, uint16_t* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = Half::of(x[j]).bits;
}

#if defined(__x86_64__)
__attribute__((target("avx2,f16c"))) void from_half_f16c(const uint16_t* x, float* y, int64_t n) {
  int64_t j = 0;
  for (; j + 8 <= n; j += 8)
    _mm256_storeu_ps(
        y + j, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + j))));
  from_half_plain(x + j, y + j, n - j);
}
__attribute__((target("avx2,f16c"))) void to_half_f16c(const float* x, uint16_t* y, int64_t n) {
  int64_t j = 0;
  for (; j + 8 <= n; j += 8)
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(y + j),
        _mm256_cvtps_ph(_mm256_loadu_ps(x + j), _MM_FROUND_TO_NEAREST_INT));
  to_half_plain(x + j, y + j, n - j);
}
#endif

}  // namespace

// The table `k_SET_name` of the best set.
#if defined(__x86_64__)
#define ALC_BEST(name) \
  (level() == 2 ? k_avx512_##name : level() == 1 ? k_avx2_##name : k_baseline_##name)
#else
#define ALC_BEST(name) k_baseline_##name
#endif
#define ALC_CHOOSE(Table, T, choose, name)   \
  template <>                                \
  const Table<T>& choose<T>() {              \
    static const auto& chosen = ALC_BEST(name); \
    return chosen;                           \
  }
ALC_CHOOSE(Kernels, float, kernels, float)
ALC_CHOOSE(Kernels, double, kernels, double)
ALC_CHOOSE(ContextKernels, float, context_kernels, context_float)
ALC_CHOOSE(ContextKernels, double, context_kernels, context_double)

const IntegerKernels& integer_kernels() {
#if defined(__x86_64__)
  static const IntegerKernels& chosen =
      level() == 2 && __builtin_cpu_supports("avx512vnni") ? k_integer_avx512
      : level() >= 1                                       ? k_integer_avx2
                                                           : k_integer_baseline;
  return chosen;
#else
  return k_integer_baseline;
#endif
}

const HalfKernels& half_kernels() {
#if defined(__x86_64__)
  static const HalfKernels chosen = level() >= 1
      ? HalfKernels{from_half_f16c, to_half_f16c}
      : HalfKernels{from_half_plain, to_half_plain};
#else
  static const HalfKernels chosen{from_half_plain, to_half_plain};
#endif
  return chosen;
}

}  // namespace alc
