// A sparse relation in the form that every pass uses: for each row its columns, ascending.
#pragma once

#include <cstdint>
#include <vector>

#include "request.h"

namespace alc {

struct Span {
  const int64_t* begin;
  const int64_t* end;
  int64_t size() const { return end - begin; }
};

class Relation {
 public:
  // Checks every index.
  Relation(const char* name, const Pairs& pairs, int64_t rows, int64_t columns);
  Relation(const Relation&) = delete;

  Span row(int64_t i) const {
    if (pairs_.start == nullptr) return {nullptr, nullptr};
    return {pairs_.column + pairs_.start[i], pairs_.column + pairs_.stop[i]};
  }

 private:
  Pairs pairs_;
  std::vector<int64_t> counting_;  // 0, 1, ..: where rows have one column each
};

// A problem's two relations.
struct Relations {
  template <typename T>
  explicit Relations(const Problem<T>& problem)
      : positives("positives", problem.positives, problem.rows, problem.columns),
        exclude("exclude", problem.exclude, problem.rows, problem.columns) {}

  Relation positives, exclude;
};

// Calls visit(column) for each column in either of two ascending rows, once.
template <typename Visit>
void visit_union(Span a, Span b, const Visit& visit) {
  const int64_t *x = a.begin, *y = b.begin;
  while (x != a.end || y != b.end) {
    const int64_t column = y == b.end || (x != a.end && *x < *y) ? *x : *y;
    visit(column);
    x += x != a.end && *x == column;
    y += y != b.end && *y == column;
  }
}

// Number of columns in either of two ascending rows.
int64_t union_size(Span a, Span b);

}  // namespace alc
