// ALC's batch part: the pairs of a group attend to each other before they are classified.
#pragma once

#include "element.h"
#include "host.h"

namespace alc {

// The heads' parameters, or their gradients, in PyTorch's order; each (out, in) or (out).
template <typename P>
struct ContextParameters {
  P in_weight, in_bias;  // context_in: (c, 4d)
  P mix_weight, mix_bias, out_weight, out_bias;  // attention: (3c, c), (c, c)
  P wide_weight, wide_bias, narrow_weight, narrow_bias;  // (f, c), (c, f)
  P norm1_weight, norm1_bias, norm2_weight, norm2_bias, head_weight, head_bias;  // head: (1, c)
};
constexpr int64_t kContextParameters = sizeof(ContextParameters<void*>) / sizeof(void*);

// Groups of `size` rows (the last may be smaller), with the gradients where they are asked for.
struct ContextRequest {
  Dtype dtype;  // of all numbers
  int64_t rows, dim, width, heads, hidden, size;
  const void *queries, *pairs;  // (n, d), (n, 2, d): the positive and the negative label
  const uint8_t* members;       // (n): rows that are seen and counted; null: all
  const void* const* parameters;
  double epsilon1, epsilon2;  // of the two normalisations
  double dropout;             // of what the layer adds, and of the hidden units
  int64_t seed;
  void* loss;  // one, written: the sum over the members
  void *grad_queries, *grad_pairs, *grad_parameters;  // written, in one piece each; null: none
};
void context_loss(const ContextRequest& request);

}  // namespace alc
