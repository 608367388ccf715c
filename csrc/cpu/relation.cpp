#include "relation.h"

#include <numeric>
#include <stdexcept>
#include <string>

namespace alc {
namespace {

void check(const char* name, const Pairs& pairs, int64_t rows, int64_t columns) {
  bool good = true;
  for (int64_t i = 0; i < rows; ++i)
    good &= 0 <= pairs.start[i] && pairs.start[i] <= pairs.stop[i] && pairs.stop[i] <= pairs.entries;
  if (pairs.stop == pairs.start + 1)  // rows one after the other
    good &= pairs.start[0] == 0 && pairs.start[rows] == pairs.entries;
  if (!good)
    throw std::invalid_argument(
        std::string(name) + ": crow is not a row pointer from 0 to " +
        std::to_string(pairs.entries));
  for (int64_t k = 0; k < pairs.entries; ++k)
    if (pairs.column[k] < 0 || pairs.column[k] >= columns)
      throw std::out_of_range(
          std::string(name) + ": label " + std::to_string(pairs.column[k]) +
          " is out of range: expected 0 <= label < " + std::to_string(columns));
}

}  // namespace

Relation::Relation(const char* name, const Pairs& pairs, int64_t rows, int64_t columns)
    : pairs_(pairs) {
  if (pairs.entries == 0 && pairs.start == nullptr) return;
  if (pairs.start == nullptr) {
    counting_.resize(rows + 1);
    std::iota(counting_.begin(), counting_.end(), int64_t{0});
    pairs_.start = counting_.data();
    pairs_.stop = pairs_.start + 1;
    if (pairs.column == nullptr) pairs_.column = pairs_.start;
  }
  check(name, pairs_, rows, columns);
}

int64_t union_size(Span a, Span b) {
  int64_t both = 0;
  const int64_t *x = a.begin, *y = b.begin;
  while (x != a.end && y != b.end) {
    both += *x == *y;
    const bool step_x = *x <= *y, step_y = *y <= *x;
    x += step_x;
    y += step_y;
  }
  return a.size() + b.size() - both;
}

}  // namespace alc
