#include "packed.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "../host.h"

namespace alc {
namespace {

// Products of numbers in between neither overflow nor lose digits.
constexpr float kSmallest = 0x1p-40f, kLargest = 0x1p40f;

float up(double x) {
  const auto near = static_cast<float>(x);
  return near < x ? std::nextafter(near, std::numeric_limits<float>::infinity()) : near;
}

}  // namespace

bool round_row(const float* x, int64_t d, int8_t* out, RowNumbers* numbers) {
  *numbers = {};
  bool finite = true;
  const float largest = kernels<float>().largest_magnitude(x, d, &finite);
  if (!finite || largest > kLargest) return false;
  if (largest == 0) {
    std::fill_n(out, d, int8_t{0});
    return true;
  }
  if (largest < kSmallest) return false;
  const float scale = largest / 127.0f;
  double squares[3];
  numbers->scale = scale;
  numbers->sum = integer_kernels().round(x, d, scale, out, squares);
  constexpr double rounding = 1 + 0x1p-40;  // of the sums
  const double residual = std::sqrt(squares[0]) * rounding, norm = std::sqrt(squares[1]) * rounding;
  const double rounded = scale * std::sqrt(squares[2]) * rounding, larger = std::max(norm, rounded);
  // e_x . y + (x - e_x) . e_y by Cauchy-Schwarz, and what float32 rounds in a sum of d products, in
  // the scales and in the bound itself.
  const double delta = static_cast<double>(d + 32) * 0x1p-24;
  numbers->reach = up((residual + delta * larger) * rounding);
  numbers->rounded = up(rounded);
  numbers->norm = up(larger);
  numbers->residual = up(residual);
  return true;
}

PackedLayout::PackedLayout(int64_t count, int64_t width)
    : groups_(blocks_of(width, integer_kernels().unit)), panels_(blocks_of(count, kPanel)) {}

bool PackedLabels::pack(const Rows<float>& labels) {
  std::atomic<bool> bounded{true};
  constexpr int64_t kTogether = 4;  // panels of a block
  for_each_block(
      blocks_of(panels_, kTogether),
      [&] { return Scratch{{}, std::vector<int8_t>(groups_ * integer_kernels().unit)}; },
      [&](int64_t number, Scratch& scratch) {
        const int64_t end = std::min(panels_, (number + 1) * kTogether);
        for (int64_t p = number * kTogether; p < end && bounded; ++p)
          if (!pack_panel(labels, p, scratch)) bounded = false;
      });
  return bounded;
}

bool PackedLabels::pack_panel(const Rows<float>& labels, int64_t p, Scratch& scratch) {
  const IntegerKernels& set = integer_kernels();
  const int64_t d = labels.width(), unit = set.unit, width = set.width;
  const int64_t columns = std::min(kPanel, labels.count() - p * kPanel);
  char* const to = memory_ + p * panel_bytes();
  if (set.bytes)  // with 128 added: 0 of columns and coordinates that are not there
    std::fill_n(to, panel_bytes(), static_cast<char>(128));
  else
    std::fill_n(to, panel_bytes(), char{0});
  float &largest_norm = number(3 * kPanel)[p], &largest_residual = number(3 * kPanel + 1)[p];
  largest_norm = largest_residual = 0;
  for (int64_t j = 0; j < kPanel; ++j) {
    RowNumbers own;
    const int64_t column = p * kPanel + j;
    if (j < columns &&
        !round_row(labels.row(column, scratch.wide), d, scratch.row.data(), &own))
      return false;
    number(0)[column] = own.scale;
    number(kPanel)[column] = own.norm;
    number(2 * kPanel)[column] = own.residual;
    if (j >= columns) continue;
    largest_norm = std::max(largest_norm, own.norm);
    largest_residual = std::max(largest_residual, own.residual);
    char* place = to + (j / width * groups_ * width + j % width) * 4;  // of the first group
    for (int64_t g = 0; g < groups_; ++g, place += width * 4) {
      const int8_t* from = scratch.row.data() + g * unit;
      uint32_t group;
      if (set.bytes) {
        std::memcpy(&group, from, 4);
        group ^= 0x80808080u;  // adds 128 to each
      } else {
        const int16_t both[] = {from[0], from[1]};
        std::memcpy(&group, both, 4);
      }
      std::memcpy(place, &group, 4);
    }
  }
  return true;
}

}  // namespace alc
