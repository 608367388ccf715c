// Sums over listed pairs, added to the gradients of their queries and labels.
#pragma once

#include <algorithm>
#include <vector>

#include "by_label.h"
#include "host.h"
#include "request.h"
#include "rows.h"

namespace alc {

constexpr int64_t kPairRows = 64;  // of a block

template <typename T>
struct PairScratch {
  std::vector<T> a, b, sum;
};

template <typename T>
struct Embeddings {
  explicit Embeddings(const Problem<T>& problem)
      : q(problem.queries, problem.dtype, problem.rows, problem.dim),
        k(problem.labels, problem.dtype, problem.columns, problem.dim) {}
  Rows<T> q, k;
};

// Calls use(i, j, place) for each listed pair of rows [first, last): label j at [i, t].
template <typename Use>
void visit_pairs(const int64_t* index, int64_t t, int64_t first, int64_t last, const Use& use) {
  for (int64_t place = first * t; place < last * t; ++place)
    if (index[place] >= 0) use(place / t, index[place], place);
}

// Pairs of an index (B, t) with a coefficient each; 0 and label -1 are left out.
template <typename T>
struct IndexPairs {
  using Place = int64_t;
  const int64_t* label;
  int64_t t;
  const T* coefficient;

  template <typename Use>
  void visit(int64_t first, int64_t last, const Use& use) const {
    visit_pairs(label, t, first, last, [&](int64_t i, int64_t j, int64_t place) {
      if (coefficient[place] != 0) use(i, j, place);
    });
  }
  int64_t query(Place place) const { return place / t; }
  T weight(Place place) const { return coefficient[place]; }
};

// Pairs in sparse rows, all with one coefficient.
template <typename T>
struct ListPairs {
  using Place = int32_t;  // the query
  const int64_t* start;
  const int32_t* label;
  T coefficient;

  template <typename Use>
  void visit(int64_t first, int64_t last, const Use& use) const {
    for (int64_t i = first; i < last; ++i)
      for (int64_t n = start[i]; n < start[i + 1]; ++n) use(i, label[n], static_cast<Place>(i));
  }
  int64_t query(Place place) const { return place; }
  T weight(Place) const { return coefficient; }
};

// Calls by_query(y, a, b, c) and by_label(y, a, b, c) for every pair: a query, b label, c its
// coefficient, y the gradient to add to (null: not wanted). Each row and each label has one owner,
// who takes its pairs in their order.
template <typename T, typename Pairs, typename AddQuery, typename AddLabel>
void add_pairs(
    const Embeddings<T>& rows, const Pairs& pairs, T* grad_q, T* grad_k, const AddQuery& by_query,
    const AddLabel& by_label) {
  const int64_t b = rows.q.count(), m = rows.k.count(), d = rows.q.width();
  const auto scratch = [] { return PairScratch<T>(); };
  if (grad_q != nullptr)
    for_each_block(blocks_of(b, kPairRows), scratch, [&](int64_t number, PairScratch<T>& room) {
      pairs.visit(number * kPairRows, std::min(b, (number + 1) * kPairRows),
                  [&](int64_t i, int64_t j, auto place) {
        by_query(grad_q + i * d, rows.q.row(i, room.a), rows.k.row(j, room.b), pairs.weight(place));
      });
    });
  if (grad_k == nullptr) return;
  using Place = typename Pairs::Place;
  const auto sorted = arrange_by_label<Place>(m, [&](const auto& visit) {
    pairs.visit(0, b, [&](int64_t, int64_t j, Place place) { visit(j, place); });
  });
  for_each_block(blocks_of(m, kPairRows), scratch, [&](int64_t number, PairScratch<T>& room) {
    for (int64_t j = number * kPairRows; j < std::min(m, (number + 1) * kPairRows); ++j)
      for (int64_t n = sorted.start[j]; n < sorted.start[j + 1]; ++n) {
        const Place place = sorted.places[n];
        const T* a = rows.q.row(pairs.query(place), room.a);
        by_label(grad_k + j * d, a, rows.k.row(j, room.b), pairs.weight(place));
      }
  });
}

// The gradient of the similarities themselves: each side gets the other's embedding.
template <typename T, typename Pairs>
void add_similarities(const Embeddings<T>& rows, const Pairs& pairs, T* grad_q, T* grad_k) {
  const int64_t d = rows.q.width();
  add_pairs(
      rows, pairs, grad_q, grad_k,
      [d](T* y, const T*, const T* b, T c) { kernels<T>().add_scaled(y, b, c, d); },
      [d](T* y, const T* a, const T*, T c) { kernels<T>().add_scaled(y, a, c, d); });
}

}  // namespace alc
