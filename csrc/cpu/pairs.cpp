// Scores, gradients and head logits of listed pairs.
#include <limits>

#include "pair_sums.h"
#include "passes.h"

namespace alc {
namespace {

[[noreturn]] void out_of_range(const char* name, int64_t label, const char* expected) {
  throw std::out_of_range(
      std::string(name) + ": label " + std::to_string(label) + " is out of range: expected " +
      expected);
}

// The pairs of an index, each checked.
template <typename T>
IndexPairs<T> index_pairs(const Problem<T>& problem, const PairRequest<T>& request) {
  for (int64_t n = 0; n < problem.rows * request.t; ++n)
    if (request.index[n] < -1 || request.index[n] >= problem.columns)
      out_of_range("index", request.index[n], "-1 <= label < labels");
  return {request.index, request.t, request.coefficient};
}

template <typename T>
ListPairs<T> list_pairs(const Problem<T>& problem, const PairRequest<T>& request) {
  const int64_t* start = request.crow;
  expect(
      problem.rows <= std::numeric_limits<int32_t>::max() && start[0] == 0 &&
          start[problem.rows] == request.t && std::is_sorted(start, start + problem.rows + 1),
      "crow and col: expected a list as the walk leaves it");
  for (int64_t n = 0; n < request.t; ++n)
    if (request.col[n] < 0 || request.col[n] >= problem.columns)
      out_of_range("col", request.col[n], "0 <= label < labels");
  return {start, request.col, *request.coefficient};
}

// values (B, t): value(a, b) of each listed pair, a its query and b its label; 0 where there is none.
template <typename T, typename Value>
void values_of_pairs(
    const Problem<T>& problem, const PairRequest<T>& request, const Value& value) {
  const Embeddings<T> rows(problem);
  const IndexPairs<T> pairs = index_pairs(problem, request);
  const int64_t b = problem.rows;
  std::fill_n(request.values, b * pairs.t, T(0));
  for_each_block(blocks_of(b, kPairRows), [&](int64_t number) {
    PairScratch<T> scratch;
    const int64_t first = number * kPairRows, last = std::min(b, first + kPairRows);
    visit_pairs(pairs.label, pairs.t, first, last, [&](int64_t i, int64_t j, int64_t place) {
      request.values[place] = value(rows.q.row(i, scratch.a), rows.k.row(j, scratch.b));
    });
  });
}

}  // namespace

template <typename T>
void score_pairs(const Problem<T>& problem, const PairRequest<T>& request) {
  values_of_pairs(problem, request, [&](const T* a, const T* b) {
    return kernels<T>().dot(a, b, problem.dim);
  });
}

template <typename T>
void pair_gradient(const Problem<T>& problem, const PairRequest<T>& request) {
  const Embeddings<T> rows(problem);
  if (request.crow == nullptr) {
    const IndexPairs<T> pairs = index_pairs(problem, request);
    add_similarities(rows, pairs, request.grad_queries, request.grad_labels);
  } else {
    const ListPairs<T> pairs = list_pairs(problem, request);
    if (pairs.coefficient != 0)
      add_similarities(rows, pairs, request.grad_queries, request.grad_labels);
  }
}

template <typename T>
void pair_logits(const Problem<T>& problem, const PairRequest<T>& request) {
  values_of_pairs(problem, request, [&](const T* a, const T* b) {
    return *request.bias + kernels<T>().pair_logit(a, b, request.weight, problem.dim);
  });
}

template <typename T>
void pair_logits_backward(const Problem<T>& problem, const PairRequest<T>& request) {
  const int64_t b = problem.rows, d = problem.dim;
  const Embeddings<T> rows(problem);
  const IndexPairs<T> pairs = index_pairs(problem, request);
  const T* w = request.weight;
  // The weight's gradient: a partial sum per part of the batch, added in their order.
  const int64_t parts = std::min<int64_t>(16, std::max<int64_t>(1, b));
  const int64_t part_rows = blocks_of(b, parts);
  std::vector<T> partial(parts * 4 * d, T(0));
  for_each_block(parts, [&](int64_t part) {
    PairScratch<T> scratch;
    const int64_t first = std::min(b, part * part_rows), last = std::min(b, first + part_rows);
    pairs.visit(first, last, [&](int64_t i, int64_t j, int64_t place) {
      kernels<T>().pair_weight(
          partial.data() + part * 4 * d, rows.q.row(i, scratch.a), rows.k.row(j, scratch.b),
          pairs.weight(place), d);
    });
  });
  std::fill_n(request.grad_weight, 4 * d, T(0));
  for (int64_t part = 0; part < parts; ++part)
    kernels<T>().add_scaled(request.grad_weight, partial.data() + part * 4 * d, T(1), 4 * d);
  add_pairs(
      rows, pairs, request.grad_queries, request.grad_labels,
      [&](T* out, const T* x, const T* y, T c) { kernels<T>().pair_query(out, x, y, w, c, d); },
      [&](T* out, const T* x, const T* y, T c) { kernels<T>().pair_label(out, x, y, w, c, d); });
}

#define ALC_PAIRS(pass)                                                 \
  template void pass(const Problem<float>&, const PairRequest<float>&); \
  template void pass(const Problem<double>&, const PairRequest<double>&);
ALC_PAIRS(score_pairs)
ALC_PAIRS(pair_gradient)
ALC_PAIRS(pair_logits)
ALC_PAIRS(pair_logits_backward)

}  // namespace alc
