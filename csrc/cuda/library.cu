// What the library says about itself.
#include "api.h"
#include "device.h"

namespace alc {
namespace {

__global__ void empty_kernel() {}

}  // namespace
}  // namespace alc

extern "C" {

int alc_cuda_interface() { return 2; }

int alc_cuda_ready() {
#ifdef ALC_ON_HOST
  (void)alc::empty_kernel;
  return 0;
#else
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, alc::empty_kernel);
  cudaGetLastError();  // an error here is an answer, not the next launch's
  return error;
#endif
}

int alc_cuda_on_gpu() {
#ifdef ALC_ON_HOST
  return 0;
#else
  return 1;
#endif
}

const char* alc_cuda_message(int code) {
  switch (code) {
    case ALC_BAD_DTYPE:
      return "the dtype is not float32, float16 or bfloat16";
    case ALC_BAD_K:
      return "k is outside 1 .. 128";
    case ALC_BAD_SIZE:
      return "a size is negative or too large";
    case ALC_BAD_SUBTILE:
      return "the sub-tile width, the tile and k do not fit each other";
    case ALC_BAD_RELATION:
      return "the kind of relation is unknown";
    default:
      return cudaGetErrorString(static_cast<cudaError_t>(code));
  }
}

}  // extern "C"
