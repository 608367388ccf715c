// Single scores with the rounding that the matrix product has.
#pragma once

#include <vector>

#include "../host.h"
#include "../rows.h"
#include "../simd/integer.h"

namespace alc {

// Matrix products sum along the embedding in order, in runs whose sums are added. How long a run is
// for rows of d elements; 0 where this PyTorch's product sums otherwise. Found by trying, once per d.
int64_t product_run(int64_t d);

// Scores of single pairs of one row.
class PairScores {
 public:
  PairScores(const Rows<float>& labels, int64_t run) : labels_(labels), run_(run) {}

  // out[n] <- x . labels[columns[n]] as the product would give it, to the bit, where its runs are
  // known; else as `near` does.
  void exact(const float* x, const std::vector<int64_t>& columns, std::vector<float>& out) {
    if (!rounds_as_product()) return near(x, columns, out);
    by_eight(columns, out, [&](const float* const* rows, float* made) {
      integer_kernels().score(x, rows, labels_.width(), run_, made);
    });
  }
  // The same, summed in any order.
  void near(const float* x, const std::vector<int64_t>& columns, std::vector<float>& out) {
    by_eight(columns, out, [&](const float* const* rows, float* made) {
      integer_kernels().near(x, rows, labels_.width(), made);
    });
  }
  bool rounds_as_product() const { return run_ > 0; }

 private:
  template <typename Score>
  void by_eight(const std::vector<int64_t>& columns, std::vector<float>& out, const Score& score) {
    const auto n = static_cast<int64_t>(columns.size());
    out.resize(round_up(n, 8));
    for (int64_t start = 0; start < n; start += 8) {
      const float* rows[8];
      for (int64_t c = 0; c < 8; ++c)
        rows[c] = start + c < n ? labels_.row(columns[start + c], wide_[c]) : rows[0];
      score(rows, out.data() + start);
    }
  }

  const Rows<float>& labels_;
  int64_t run_;
  std::vector<float> wide_[8];
};

}  // namespace alc
