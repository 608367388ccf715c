// Rows rounded to 8-bit integers, with what bounds the products of two such rows.
#pragma once

#include <memory>
#include <vector>

#include "../rows.h"
#include "../simd/integer.h"

namespace alc {

// Memory that begins at a multiple of 64 bytes.
class Aligned {
 public:
  explicit Aligned(int64_t bytes) : memory_(new char[bytes + 64]) {}
  char* get() const {
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    return memory_.get() + (64 - address % 64) % 64;
  }

 private:
  std::unique_ptr<char[]> memory_;
};

// Scales and bounds: |x . y - s_hat| <= reach(x) norm(y) + rounded(x) residual(y), where s_hat is
// scale(x) scale(y) times the integers' product, and x . y the sum as floats round it.
struct RowNumbers {
  float scale = 0;
  float reach = 0, rounded = 0;  // as the side whose rows are screened
  float norm = 0, residual = 0;  // as the other
  int32_t sum = 0;               // of the integers
};

// Integers of one row, `out` (d), and its numbers. False where it cannot be bounded: not finite, or
// so large or small that products leave the range of float.
bool round_row(const float* x, int64_t d, int8_t* out, RowNumbers* numbers);

// The rows of a catalogue in panels.
class PackedLabels {
 public:
  explicit PackedLabels(const Rows<float>& labels);

  bool bounded() const { return bounded_; }
  int64_t groups() const { return groups_; }
  int64_t panels() const { return panels_; }
  const char* panel(int64_t p) const { return data_.get() + p * panel_bytes_; }
  // Per column, and the largest of each panel.
  const float* scale() const { return scale_.data(); }
  const float* norm() const { return norm_.data(); }
  const float* residual() const { return residual_.data(); }
  float largest_norm(int64_t p) const { return largest_norm_[p]; }
  float largest_residual(int64_t p) const { return largest_residual_[p]; }

 private:
  bool pack(const Rows<float>& labels, int64_t p, std::vector<float>& wide, std::vector<int8_t>& row);

  int64_t groups_, panels_, panel_bytes_;
  Aligned data_;
  std::vector<float> scale_, norm_, residual_, largest_norm_, largest_residual_;
  bool bounded_ = true;
};

}  // namespace alc
