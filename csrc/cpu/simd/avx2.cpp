// The loops for avx2.
#include "kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define ALC_SIMD avx2
#include "loops.h"

namespace alc {
extern const Kernels<float> k_avx2_float;
extern const Kernels<double> k_avx2_double;
const Kernels<float> k_avx2_float = avx2::table<float>("avx2");
const Kernels<double> k_avx2_double = avx2::table<double>("avx2");
}  // namespace alc

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
