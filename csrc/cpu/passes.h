// The passes over the similarities and over listed pairs; api.cpp makes C functions of them.
#pragma once

#include "request.h"

namespace alc {

// One pass over the similarities, tile by tile; with `row_scale` also the gradient of a dense base
// loss, so that the similarities are computed once for both.
template <typename T>
void walk(const Problem<T>& problem, const WalkRequest<T>& request);

// The problem's labels for screening: how many bytes they take, 0 where they are not screened; and
// they, in memory that begins at a multiple of 64 bytes. False where a label cannot be bounded.
template <typename T>
int64_t packed_bytes(const Problem<T>& problem);
template <typename T>
bool pack_labels(const Problem<T>& problem, void* memory);

// (2, B): each row's number of positives, then of negatives.
template <typename T>
void count_pairs(const Problem<T>& problem, int64_t* counts);

// The gradient of every pair.
template <typename T>
void dense_gradient(const Problem<T>& problem, const DenseRequest<T>& request);

// Sums (B) over each row's positives of softplus(lse - z) and of sigmoid(lse - z).
template <typename T>
struct PositiveRequest {
  FormulaRequest<T> formula;
  const T* log_sum_exp;
  T *softplus_sum, *sigmoid_sum;
};
template <typename T>
void positive_pass(const Problem<T>& problem, const PositiveRequest<T>& request);

// Listed pairs: label index[i, t] of row i, -1 where there is none; or, with crow, the rows of a walk's
// active pairs, all with one coefficient.
template <typename T>
struct PairRequest {
  const int64_t* index;  // (B, t)
  int64_t t;
  const int64_t* crow;  // (B + 1)
  const int32_t* col;
  const T* coefficient;  // (B, t), or one
  const T *weight, *bias;  // of the head: (4d), one
  T* values;               // (B, t), written
  T *grad_queries, *grad_labels, *grad_weight;  // added to; (4d), written
};
template <typename T>
void score_pairs(const Problem<T>& problem, const PairRequest<T>& request);
template <typename T>
void pair_gradient(const Problem<T>& problem, const PairRequest<T>& request);
template <typename T>
void pair_logits(const Problem<T>& problem, const PairRequest<T>& request);
template <typename T>
void pair_logits_backward(const Problem<T>& problem, const PairRequest<T>& request);

// Unit rows of one matrix, or the gradient through them.
struct NormalRequest {
  Dtype input, output;
  int64_t rows, dim;
  const void* x;
  void* out;
  void* inverse_norm;    // (n) acc of `input`, written; null: rows are only converted
  const void *grad, *upstream;  // backward: (n, d) acc and one; `inverse_norm` is read
};
// Of one matrix, or of two at once; whether all they hold is finite.
bool normalize(const NormalRequest& one, const NormalRequest* other);
void normalize_backward(const NormalRequest& request);

}  // namespace alc
