// Similarities at every width: sums that grow along the embedding, scaled at each width.
#pragma once

#include <vector>

#include "guard.h"
#include "host.h"
#include "request.h"
#include "rows.h"

namespace alc {

template <typename T>
struct Tiles {
  explicit Tiles(const Problem<T>& problem)
      : queries(problem.queries, problem.dtype, problem.rows, problem.dim),
        labels(problem.labels, problem.dtype, problem.columns, problem.dim),
        query_scale(problem.query_scale), label_scale(problem.label_scale),
        limits{problem.guard, problem.row_slack, problem.column_slack} {
    if (problem.widths == nullptr) {
      widths = {problem.dim};
      return;
    }
    widths.assign(problem.widths, problem.widths + problem.count);
    bool good = !widths.empty();
    expect(good, "widths: expected one or more");
    for (int64_t n = 0; n < count(); ++n) good &= before(n) < widths[n] && widths[n] <= problem.dim;
    if (!good)
      throw std::invalid_argument(
          "widths: expected ascending numbers in 1 .. " + std::to_string(problem.dim));
    expect((query_scale == nullptr) == (label_scale == nullptr),
           "query_scale and label_scale: expected both or neither");
  }

  int64_t count() const { return static_cast<int64_t>(widths.size()); }
  int64_t before(int64_t n) const { return n == 0 ? 0 : widths[n - 1]; }
  int64_t more(int64_t n) const { return widths[n] - before(n); }  // coordinates that n adds
  // Whether the sums are the similarities.
  bool plain() const { return count() == 1 && query_scale == nullptr; }

  // raw (r, c) += q (r, d) k^T, k (c, d), of the coordinates that width n adds.
  void grow(const T* q, int64_t r, const T* k, int64_t c, int64_t n, T* raw, int64_t stride) const {
    const int64_t d = labels.width(), from = before(n);
    Matrix<T>(raw, r, c, stride)
        .product(Matrix<T>(q + from, r, more(n), d), Matrix<T>(k + from, more(n), c, 1, d), n > 0);
  }

  // s (c) <- row i's similarities of width n with the labels [col, col + c)
  void scale(const T* raw, int64_t n, int64_t i, int64_t col, int64_t c, T* s) const {
    if (query_scale == nullptr)
      std::copy_n(raw, c, s);
    else
      kernels<T>().scale_each(
          s, raw, label_scale + n * labels.count() + col, query_scale[n * queries.count() + i], c);
  }

  RowGuard<T> limit(int64_t n, int64_t i) const {
    return limits.row(n * queries.count() + i, n * labels.count());
  }

  Rows<T> queries, labels;
  std::vector<int64_t> widths;
  const T *query_scale, *label_scale;  // (W, B), (W, M), or null
  Guard<T> limits;                     // a plane per width
};

}  // namespace alc
