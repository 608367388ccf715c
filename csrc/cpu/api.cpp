// The C interface: pointers and sizes, no PyTorch. Begin here; request.h has the structures.
#include <cstring>
#include <string>

#include "context.h"
#include "passes.h"
#include "host.h"
#include "rows.h"
#include "simd/integer.h"

namespace alc {

Host host;

namespace {

thread_local std::string message;

// Runs `work`; 0, or what kind of error `message` is.
template <typename Work>
int32_t guarded(const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::invalid_argument& error) {
    message = error.what();
    return 1;
  } catch (const std::out_of_range& error) {
    message = error.what();
    return 2;
  } catch (const std::exception& error) {
    message = error.what();
    return 3;
  }
}

// A problem's pass in its accumulation type: `problem` begins with its dtype.
template <typename Pass>
int32_t run(const void* problem, const Pass& pass) {
  return guarded([&] {
    by_accumulation_type(*static_cast<const Dtype*>(problem), [&](auto zero) {
      pass(*static_cast<const Problem<decltype(zero)>*>(problem), zero);
    });
  });
}

}  // namespace
}  // namespace alc

#define ALC_PASS(name, request_type)                                                    \
  ALC_EXPORT int32_t alc_##name(const void* problem, const void* request) {             \
    return alc::run(problem, [&](const auto& own, auto zero) {                          \
      alc::name(own, *static_cast<const alc::request_type<decltype(zero)>*>(request));  \
    });                                                                                 \
  }
#define ALC_EXPORT __attribute__((visibility("default")))

extern "C" {

// Once, before all else. sizes: of the structures as the caller has them; the number of the first
// that is another here, or -1.
ALC_EXPORT int32_t alc_connect(const alc::Host* host, const int64_t* sizes, int64_t count) {
  const size_t own[] = {
      sizeof(alc::Problem<float>), sizeof(alc::WalkRequest<float>),
      sizeof(alc::DenseRequest<float>), sizeof(alc::PositiveRequest<float>),
      sizeof(alc::PairRequest<float>), sizeof(alc::NormalRequest), sizeof(alc::ScreenRequest),
      sizeof(alc::ContextRequest)};
  for (int64_t n = 0; n < count; ++n)
    if (n >= static_cast<int64_t>(std::size(own)) || sizes[n] != static_cast<int64_t>(own[n]))
      return static_cast<int32_t>(n);
  alc::host = *host;
  return -1;
}

// The instruction set of the vector loops.
ALC_EXPORT const char* alc_simd() { return alc::kernels<float>().name; }

// That of the 8-bit products.
ALC_EXPORT const char* alc_integer_simd() { return alc::integer_kernels().name; }

// What went wrong in this thread's last call that did not return 0.
ALC_EXPORT const char* alc_message() { return alc::message.c_str(); }

ALC_PASS(walk, WalkRequest)
ALC_PASS(dense_gradient, DenseRequest)
ALC_PASS(positive_pass, PositiveRequest)
ALC_PASS(score_pairs, PairRequest)
ALC_PASS(pair_gradient, PairRequest)
ALC_PASS(pair_logits, PairRequest)
ALC_PASS(pair_logits_backward, PairRequest)

ALC_EXPORT int32_t alc_count_pairs(const void* problem, int64_t* counts) {
  return alc::run(problem, [&](const auto& own, auto) { alc::count_pairs(own, counts); });
}

ALC_EXPORT int32_t alc_packed_bytes(const void* problem, int64_t* bytes) {
  return alc::run(problem, [&](const auto& own, auto) { *bytes = alc::packed_bytes(own); });
}

ALC_EXPORT int32_t alc_pack_labels(const void* problem, void* memory, int64_t* bounded) {
  return alc::run(problem, [&](const auto& own, auto) { *bounded = alc::pack_labels(own, memory); });
}

// other: null for one matrix alone.
ALC_EXPORT int32_t alc_normalize(
    const alc::NormalRequest* one, const alc::NormalRequest* other, int64_t* finite) {
  return alc::guarded([&] { *finite = alc::normalize(*one, other); });
}

ALC_EXPORT int32_t alc_context_loss(const alc::ContextRequest* request) {
  return alc::guarded([&] { alc::context_loss(*request); });
}

ALC_EXPORT int32_t alc_normalize_backward(const alc::NormalRequest* request) {
  return alc::guarded([&] { alc::normalize_backward(*request); });
}

}  // extern "C"
