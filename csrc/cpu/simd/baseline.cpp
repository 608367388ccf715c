// The loops for the processors that the compiler targets by default.
#include "context.h"
#include "kernels.h"

#define ALC_SIMD baseline
#define ALC_VECTOR 16
#include "loops.h"
#include "product_loops.h"
#include "context_loops.h"

namespace alc {
extern const Kernels<float> k_baseline_float;
extern const Kernels<double> k_baseline_double;
extern const ContextKernels<float> k_baseline_context_float;
extern const ContextKernels<double> k_baseline_context_double;
const Kernels<float> k_baseline_float = baseline::table<float>("baseline");
const Kernels<double> k_baseline_double = baseline::table<double>("baseline");
const ContextKernels<float> k_baseline_context_float = baseline::context_table<float>();
const ContextKernels<double> k_baseline_context_double = baseline::context_table<double>();
}  // namespace alc
