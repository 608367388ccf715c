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

// How the rows of a catalogue lie in memory: panels, then numbers of each column and of each panel.
class PackedLayout {
 public:
  PackedLayout(int64_t count, int64_t width);

  int64_t bytes() const { return numbers() + (3 * kPanel + 2) * panels_ * 4; }
  int64_t groups() const { return groups_; }

 protected:
  int64_t panel_bytes() const { return groups_ * kPanel * 4; }
  int64_t numbers() const { return panels_ * panel_bytes(); }  // where they begin
  int64_t groups_, panels_;
};

// The same, packed: in memory that is given, which begins at a multiple of 64 bytes.
class PackedLabels : public PackedLayout {
 public:
  PackedLabels(char* memory, int64_t count, int64_t width)
      : PackedLayout(count, width), memory_(memory) {}

  // Fills the memory in. False where a row cannot be bounded.
  bool pack(const Rows<float>& labels);

  const char* panel(int64_t p) const { return memory_ + p * panel_bytes(); }
  // Per column, and the largest of each panel.
  const float* scale() const { return number(0); }
  const float* norm() const { return number(kPanel); }
  const float* residual() const { return number(2 * kPanel); }
  float largest_norm(int64_t p) const { return number(3 * kPanel)[p]; }
  float largest_residual(int64_t p) const { return number(3 * kPanel + 1)[p]; }

 private:
  struct Scratch {
    std::vector<float> wide;
    std::vector<int8_t> row;
  };
  float* number(int64_t n) const {
    return reinterpret_cast<float*>(memory_ + numbers()) + n * panels_;
  }
  bool pack_panel(const Rows<float>& labels, int64_t p, Scratch& scratch);

  char* memory_;
};

}  // namespace alc
