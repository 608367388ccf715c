// Listed pairs arranged by label, so that each label's gradient has one owner.
#pragma once

#include <cstdint>
#include <vector>

namespace alc {

// For each label the places of its pairs in ascending order: places[start[j]] .. [start[j + 1]].
template <typename Place>
struct ByLabel {
  std::vector<int64_t> start;
  std::vector<Place> places;
};

// for_each(visit) calls visit(label, place) for every pair, in order, twice.
template <typename Place, typename ForEach>
ByLabel<Place> arrange_by_label(int64_t num_labels, const ForEach& for_each) {
  ByLabel<Place> made;
  made.start.assign(num_labels + 1, 0);
  for_each([&](int64_t label, Place) { ++made.start[label + 1]; });
  for (int64_t j = 0; j < num_labels; ++j) made.start[j + 1] += made.start[j];
  made.places.resize(made.start[num_labels]);
  std::vector<int64_t> next(made.start.begin(), made.start.end() - 1);
  for_each([&](int64_t label, Place place) { made.places[next[label]++] = place; });
  return made;
}

}  // namespace alc
