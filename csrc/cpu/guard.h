// The false-negative guard: which of a row's similarities are above it.
#pragma once

#include <cstdint>
#include <limits>

#include "simd/kernels.h"

namespace alc {

// Of one row: column j is excluded where s > limit - slack * columns[j].
template <typename T>
struct RowGuard {
  T limit = std::numeric_limits<T>::infinity();  // which is that of no guard
  T slack = 0;
  const T* columns = nullptr;  // null: no slack

  // The columns [start, start + n): -inf at what is excluded; returns how many.
  int64_t exclude(T* s, int64_t start, int64_t n) const {
    if (!(limit < std::numeric_limits<T>::infinity())) return 0;
    return kernels<T>().guard(s, n, limit, slack, columns == nullptr ? nullptr : columns + start);
  }
};

// Of all rows, or of all rows of several planes. All null: no guard; the last two: no slack.
template <typename T>
struct Guard {
  const T* limit = nullptr;
  const T* slack = nullptr;
  const T* columns = nullptr;

  // Of the row at `at`; `first`: of its plane's columns.
  RowGuard<T> row(int64_t at, int64_t first = 0) const {
    RowGuard<T> made;
    if (limit != nullptr) made.limit = limit[at];
    if (slack != nullptr && columns != nullptr) {
      made.slack = slack[at];
      made.columns = columns + first;
    }
    return made;
  }
};

}  // namespace alc
