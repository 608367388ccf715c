// Which pairs of a walk need full precision: products of rows rounded to 8 bits bound every score,
// and only pairs that may be among the k hardest, or past a margin, are scored again.
//
// A column is a candidate of its row when its upper bound U exceeds tau, the smaller of the margin
// and the k-th largest lower bound L so far: columns come in ascending order and ties go to the
// smaller, so a later column must be larger than those k. See docs/kernels.md.
#pragma once

#include <atomic>
#include <bit>
#include <limits>
#include <optional>
#include <vector>

#include "../relation.h"
#include "../row_scan.h"
#include "../tiles.h"
#include "packed.h"
#include "rounding.h"

namespace alc {

struct Candidate {
  int32_t column;
  float upper;
};

// A row of a block while it is screened.
struct ScreenedRow {
  TopK<float> lower;  // of certain negatives
  std::vector<Candidate> candidates;
  Span positives, excluded;  // that are still to come
  int64_t guarded;           // columns that are certainly above the guard
};

struct ScreenScratch {
  ScreenScratch(const Rows<float>& labels, int64_t run) : scores(labels, run) {}
  PairScores scores;
  std::optional<Aligned> queries, products;
  std::vector<int8_t> integers;
  std::vector<ScreenedRow> rows;
  // Per row of the block, as the vector loops want them.
  std::vector<float> scale, inverse_scale, reach, rounded, norm, tau, threshold;
  std::vector<int32_t> start;
  std::vector<uint64_t> above;
  std::vector<int64_t> columns;
  int64_t kept, looked;  // candidates of the block, columns that were looked at
  std::vector<float> exact;
};

class Screening {
 public:
  // Whether a walk of this request is expected to save time so.
  static bool wanted(
      const Tiles<float>& tiles, const ScanOptions<float>& options, const ScreenRequest& request);

  Screening(
      const Tiles<float>& tiles, const Relations& relations, const ScanOptions<float>& options,
      ScreenRequest& request);
  ~Screening();

  // Whether the numbers allow it.
  bool on() const { return bounded_; }
  ScreenScratch make_scratch() const { return {tiles_.labels, run_}; }

  // Rows [row, row + r), begun in `scans`, at q: fills those and `active` in for all columns before
  // the one that it returns, from which full precision is to go on.
  int64_t block(
      const float* q, int64_t row, int64_t r, RowScan<float>* scans, ActiveLists* active, bool keep,
      ScreenScratch& scratch) const;

 private:
  bool begin(const float* q, int64_t row, int64_t r, ScreenScratch& scratch) const;
  void look(int64_t i, int64_t row, int64_t p, const float* products, ScreenScratch& s) const;
  void drop(int64_t r, ScreenScratch& scratch) const;
  bool refine(const float* x, int64_t i, ScreenScratch& scratch) const;
  int64_t settle(
      const float* x, int64_t i, int64_t at, int64_t until, RowScan<float>& scan,
      ActiveLists* active, ScreenScratch& scratch) const;
  int64_t collect(const ScreenedRow& row, ScreenScratch& scratch) const;
  int64_t narrow(const float* x, int64_t i, ScreenScratch& scratch) const;
  // What two ways to sum the same product in float can differ by.
  float spread(float norm, int64_t column) const {
    return static_cast<float>(tiles_.labels.width() + 32) * 0x1p-23f * norm *
           labels_.norm()[column];
  }
  float tau(const ScreenedRow& row, const RowGuard<float>& guard) const;
  float least(const ScreenedRow& row) const { return std::min(row.lower.threshold(), margin_); }
  int64_t k() const { return std::min(options_.top_k, tiles_.labels.count()); }

  const Tiles<float>& tiles_;
  const Relations& relations_;
  const ScanOptions<float>& options_;
  ScreenRequest& request_;
  std::optional<Aligned> memory_;  // of labels that were not packed before
  PackedLabels labels_;
  bool bounded_ = true;
  const int64_t run_;
  float margin_;              // what a score must exceed for the margin's sake
  float largest_slack_ = 0;   // of the guard's columns
  mutable std::atomic<int64_t> screened_{0}, given_up_{0}, scored_{0};
};

}  // namespace alc
