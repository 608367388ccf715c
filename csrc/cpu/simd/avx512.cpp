// The loops for avx512.
#include "context.h"
#include "kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif

#define ALC_SIMD avx512
#define ALC_VECTOR 64
#include "loops.h"
#include "product_loops.h"
#include "context_loops.h"

namespace alc {
extern const Kernels<float> k_avx512_float;
extern const Kernels<double> k_avx512_double;
extern const ContextKernels<float> k_avx512_context_float;
extern const ContextKernels<double> k_avx512_context_double;
const Kernels<float> k_avx512_float = avx512::table<float>("avx512");
const Kernels<double> k_avx512_double = avx512::table<double>("avx512");
const ContextKernels<float> k_avx512_context_float = avx512::context_table<float>();
const ContextKernels<double> k_avx512_context_double = avx512::context_table<double>();
}  // namespace alc

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
