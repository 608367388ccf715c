// The loops for avx2.
#include "context.h"
#include "kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define ALC_SIMD avx2
#define ALC_VECTOR 32
#include "loops.h"
#include "product_loops.h"
#include "context_loops.h"

namespace alc {
extern const Kernels<float> k_avx2_float;
extern const Kernels<double> k_avx2_double;
extern const ContextKernels<float> k_avx2_context_float;
extern const ContextKernels<double> k_avx2_context_double;
const Kernels<float> k_avx2_float = avx2::table<float>("avx2");
const Kernels<double> k_avx2_double = avx2::table<double>("avx2");
const ContextKernels<float> k_avx2_context_float = avx2::context_table<float>();
const ContextKernels<double> k_avx2_context_double = avx2::context_table<double>();
}  // namespace alc

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
