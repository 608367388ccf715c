// A chunk of coefficients, made and multiplied out: the only place where part of S is stored.
//
// At one width the products are by the rows that the similarities are of. At several, or where the
// targets have room for dots, they are by the rows before their norms and shared by the widths. With
// G the coefficients of one width, q its factors of the rows, k of the columns (inverse norms), a
// coordinate c of the queries gets
//     sum over the widths w > c of  q_i G_ij k_j  times  labels[j, c],
// one product with the sum of the widths' scaled coefficients; the labels the transposed. What
// normalising takes off again is u (u . g), of which only u . g = sum_j G_ij s_ij is needed.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "row_scan.h"
#include "tiles.h"

namespace alc {

constexpr int64_t kChunkBytes = 16 << 20;
constexpr int64_t kCacheLine = 64;
constexpr int64_t kTileColumns = 1024;
constexpr int64_t kSharedStep = 64;  // rows that are summed before they are added to the dots

template <typename T>
struct ChunkScratch {
  std::vector<T> queries, labels, raw, spare;
  std::vector<Pair<T>> positives;
  RowScan<T> scan;
};

template <typename T>
class GradientChunk {
 public:
  // max_columns: of one chunk. similarities: all of them (B, M) where a walk has kept them: they are
  // the only chunk, and are overwritten; else null.
  GradientChunk(
      const Tiles<T>& tiles, const Targets<T>& targets, int64_t max_columns,
      T* similarities = nullptr)
      : tiles_(tiles), to_(targets), b_(tiles.queries.count()), m_(tiles.labels.count()),
        d_(tiles.labels.width()), shared_(targets.query_dots != nullptr),
        known_(similarities != nullptr), data_(similarities) {
    expect(tiles.plain() || shared_, "targets: expected room for the dots of every width");
    const bool whole = known_ || shared_;
    columns_ = std::max<int64_t>(1, whole ? m_ : std::min(max_columns, m_));
    const int64_t fit = kChunkBytes / static_cast<int64_t>(sizeof(T)) / (tiles.count() * columns_);
    rows_ = std::max<int64_t>(1, known_ ? b_ : std::min(std::max<int64_t>(16, fit), b_));
    step_ = std::clamp<int64_t>(round_up(blocks_of(rows_, num_threads()), 16), 32, 128);
    if (shared_) {  // sums by blocks of rows must not depend on the threads
      step_ = kSharedStep;
      if (rows_ > step_) rows_ = rows_ / step_ * step_;
      sums_.resize(blocks_of(rows_, step_) * tiles.count() * m_);
      if (tiles.query_scale == nullptr) ones_.assign(m_, T(1));
      std::fill_n(to_.query_dots, tiles.count() * b_, T(0));
      std::fill_n(to_.label_dots, tiles.count() * m_, T(0));
    }
    if (!known_) {
      const size_t bytes = sizeof(T) * tiles.count() * rows_ * columns_;
      data_ = static_cast<T*>(std::aligned_alloc(kCacheLine, round_up(bytes, kCacheLine)));
      if (data_ == nullptr) throw std::bad_alloc();
      storage_.reset(data_);
    }
    if (to_.fresh && (b_ == 0 || m_ == 0)) {  // nothing will be written
      if (to_.grad_queries != nullptr) std::fill_n(to_.grad_queries, b_ * d_, T(0));
      if (to_.grad_labels != nullptr) std::fill_n(to_.grad_labels, m_ * d_, T(0));
    }
  }

  // slopes(n, i, s, col, cols, scratch) turns row i's similarities at width n with the labels
  // [col, col + cols) into its coefficients, in place.
  template <typename Slopes>
  void run(const Slopes& slopes) {
    for (int64_t row = 0; row < b_; row += rows_)
      for (int64_t col = 0; col == 0 || col < m_; col += columns_)
        chunk(row, std::min(rows_, b_ - row), col, std::min(columns_, m_ - col), slopes);
    if (shared_ && tiles_.label_scale != nullptr)
      for (int64_t at = 0; at < tiles_.count() * m_; ++at)
        to_.label_dots[at] *= tiles_.label_scale[at];
  }

 private:
  T* plane(int64_t n) { return data_ + n * rows_ * columns_; }

  template <typename Slopes>
  void chunk(int64_t row, int64_t rows, int64_t col, int64_t cols, const Slopes& slopes) {
    const int64_t widths = tiles_.count();
    std::fill(sums_.begin(), sums_.end(), T(0));
    for_each_block(
        blocks_of(rows, step_), [] { return ChunkScratch<T>(); },
        [&](int64_t number, ChunkScratch<T>& scratch) {
          const int64_t first = number * step_, r = std::min(step_, rows - first);
          T* sums = shared_ ? sums_.data() + number * widths * m_ : nullptr;
          block(row, first, r, col, cols, sums, scratch, slopes);
        });
    for (int64_t number = 0; shared_ && number < blocks_of(rows, step_); ++number)
      kernels<T>().add_scaled(
          to_.label_dots, sums_.data() + number * widths * m_, T(1), widths * m_);
    if (to_.grad_labels == nullptr) return;
    std::vector<T> buffer;
    const T* q = tiles_.queries.block(row, rows, buffer);
    // Each label's gradient has one owner, who adds the rows in their order.
    const int64_t share = std::clamp<int64_t>(
        round_up(blocks_of(cols, 2 * num_threads()), 64), 128, kTileColumns);
    for_each_block(blocks_of(cols, share), [&](int64_t number) {
      const int64_t c = number * share, size = std::min(share, cols - c);
      for (int64_t n = 0; n < widths; ++n) {
        const int64_t from = tiles_.before(n), more = tiles_.more(n);
        Matrix<T>(to_.grad_labels + (col + c) * d_ + from, size, more, d_)
            .product(
                Matrix<T>(plane(n) + c, size, rows, 1, columns_),
                Matrix<T>(q + from, rows, more, d_), !(to_.fresh && row == 0));
      }
    });
  }

  // Rows [row + first, row + first + r): coefficients into the planes, and the queries' gradient.
  template <typename Slopes>
  void block(
      int64_t row, int64_t first, int64_t r, int64_t col, int64_t cols, T* sums,
      ChunkScratch<T>& scratch, const Slopes& slopes) {
    const int64_t begin = row + first;
    const T* q = tiles_.queries.block(begin, r, scratch.queries);
    const T* k = nullptr;
    const auto labels_from = [&](int64_t c, int64_t size) {
      return k = tiles_.labels.block(col + c, size, scratch.labels);
    };
    if (shared_) {
      labels_from(0, cols);
      scratch.raw.resize(r * cols);
      for (int64_t n = 0; n < tiles_.count(); ++n) {
        tiles_.grow(q, r, k, cols, n, scratch.raw.data(), cols);
        for (int64_t i = 0; i < r; ++i) {
          const T* raw = scratch.raw.data() + i * cols;
          T* s = plane(n) + (first + i) * columns_;
          tiles_.scale(raw, n, begin + i, 0, cols, s);
          slopes(n, begin + i, s, col, cols, scratch);
          weigh(n, begin + i, raw, s, sums + n * m_);
        }
      }
      // What a coordinate gets: the sum over the widths that have it.
      for (int64_t n = tiles_.count() - 2; n >= 0; --n)
        kernels<T>().add_scaled(
            plane(n) + first * columns_, plane(n + 1) + first * columns_, T(1), r * columns_);
    } else {
      T* s = data_ + first * columns_;
      for (int64_t c = 0; c < cols && !known_; c += kTileColumns) {
        const int64_t size = std::min(kTileColumns, cols - c);
        tiles_.grow(q, r, labels_from(c, size), size, 0, s + c, columns_);
      }
      for (int64_t i = 0; i < r; ++i) slopes(0, begin + i, s + i * columns_, col, cols, scratch);
    }
    if (to_.grad_queries == nullptr) return;
    const int64_t tile = tiles_.labels.wide() || shared_ ? cols : kTileColumns;
    for (int64_t c = 0; c < cols; c += tile) {
      const int64_t size = std::min(tile, cols - c);
      if (!shared_) labels_from(c, size);
      for (int64_t n = 0; n < tiles_.count(); ++n) {
        const int64_t from = tiles_.before(n), more = tiles_.more(n);
        Matrix<T>(to_.grad_queries + begin * d_ + from, r, more, d_)
            .product(
                Matrix<T>(plane(n) + first * columns_ + c, r, size, columns_),
                Matrix<T>(k + from, size, more, d_), !(to_.fresh && col + c == 0));
      }
    }
  }

  // The row's dots, then its coefficients times the factors of both sides.
  void weigh(int64_t n, int64_t i, const T* raw, T* g, T* sums) {
    const bool scaled = tiles_.query_scale != nullptr;
    const T q = scaled ? tiles_.query_scale[n * b_ + i] : T(1);
    const T* k = scaled ? tiles_.label_scale + n * m_ : ones_.data();
    const T factor = static_cast<T>(to_.weights[n]) * q;
    to_.query_dots[n * b_ + i] =
        static_cast<T>(q * kernels<T>().weigh_slopes(g, raw, k, q, factor, sums, m_));
  }

  const Tiles<T>& tiles_;
  const Targets<T>& to_;
  int64_t b_, m_, d_, rows_ = 0, columns_ = 0, step_ = 0;
  bool shared_, known_;
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> storage_;
  std::vector<T> sums_, ones_;
  T* data_;
};

}  // namespace alc
