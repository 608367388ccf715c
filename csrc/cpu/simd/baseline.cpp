// The loops for the processors that the compiler targets by default.
#include "kernels.h"

#define ALC_SIMD baseline
#include "loops.h"

namespace alc {
extern const Kernels<float> k_baseline_float;
extern const Kernels<double> k_baseline_double;
const Kernels<float> k_baseline_float = baseline::table<float>("baseline");
const Kernels<double> k_baseline_double = baseline::table<double>("baseline");
}  // namespace alc
