#include "packed.h"

#include <atomic>
#include <cmath>
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

PackedLabels::PackedLabels(const Rows<float>& labels)
    : groups_(blocks_of(labels.width(), integer_kernels().unit)),
      panels_(blocks_of(labels.count(), kPanel)), panel_bytes_(groups_ * kPanel * 4),
      data_(panels_ * panel_bytes_), scale_(panels_ * kPanel), norm_(panels_ * kPanel),
      residual_(panels_ * kPanel), largest_norm_(panels_), largest_residual_(panels_) {
  struct Scratch {
    std::vector<float> wide;
    std::vector<int8_t> row;
  };
  std::atomic<bool> bounded{true};
  constexpr int64_t kTogether = 4;  // panels of a block
  for_each_block(
      blocks_of(panels_, kTogether), [&] { return Scratch{{}, std::vector<int8_t>(labels.width())}; },
      [&](int64_t number, Scratch& scratch) {
        const int64_t end = std::min(panels_, (number + 1) * kTogether);
        for (int64_t p = number * kTogether; p < end && bounded; ++p)
          if (!pack(labels, p, scratch.wide, scratch.row)) bounded = false;
      });
  bounded_ = bounded;
}

bool PackedLabels::pack(
    const Rows<float>& labels, int64_t p, std::vector<float>& wide, std::vector<int8_t>& row) {
  const IntegerKernels& set = integer_kernels();
  const int64_t d = labels.width(), unit = set.unit, width = set.width;
  const int64_t columns = std::min(kPanel, labels.count() - p * kPanel);
  char* const to = data_.get() + p * panel_bytes_;
  if (set.bytes)  // with 128 added: 0 of columns and coordinates that are not there
    std::fill_n(to, panel_bytes_, static_cast<char>(128));
  else
    std::fill_n(to, panel_bytes_, char{0});
  for (int64_t j = 0; j < columns; ++j) {
    RowNumbers own;
    const int64_t column = p * kPanel + j;
    if (!round_row(labels.row(column, wide), d, row.data(), &own)) return false;
    scale_[column] = own.scale;
    norm_[column] = own.norm;
    residual_[column] = own.residual;
    largest_norm_[p] = std::max(largest_norm_[p], own.norm);
    largest_residual_[p] = std::max(largest_residual_[p], own.residual);
    char* place = to + (j / width * groups_ * width + j % width) * 4;  // of the first group
    for (int64_t k = 0; k < d; k += unit, place += width * 4)
      for (int64_t n = 0; n < std::min(unit, d - k); ++n) {
        if (set.bytes)
          reinterpret_cast<uint8_t*>(place)[n] = static_cast<uint8_t>(row[k + n] + 128);
        else
          reinterpret_cast<int16_t*>(place)[n] = row[k + n];
      }
  }
  return true;
}

}  // namespace alc
