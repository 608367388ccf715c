// A chunk of coefficients, made and multiplied out: the only place where part of S is stored.
#pragma once

#include <ATen/ops/empty.h>

#include "blocks.h"
#include "product.h"
#include "row_scan.h"
#include "rows.h"

namespace alc {

constexpr int64_t kChunkBytes = 16 << 20;
constexpr int64_t kTileColumns = 1024;

template <typename T>
struct ChunkScratch {
  std::vector<T> queries, labels, spare;
  std::vector<Pair<T>> positives;
  RowScan<T> scan;
};

template <typename T>
class GradientChunk {
 public:
  // max_columns: of one chunk. fresh: the gradients hold nothing yet. similarities: all of them (B, M) where a walk has kept them: they
  // are the only chunk, and are overwritten; else null.
  GradientChunk(const Rows<T>& queries, const Rows<T>& labels, int64_t max_columns, T* grad_queries,
                T* grad_labels, bool fresh, T* similarities = nullptr)
      : queries_(queries), labels_(labels), grad_queries_(grad_queries), grad_labels_(grad_labels),
        fresh_(fresh), known_(similarities != nullptr), data_(similarities) {
    const int64_t wanted = kChunkBytes / static_cast<int64_t>(sizeof(T));
    columns_ = std::max<int64_t>(1, known_ ? labels.count() : std::min(max_columns, labels.count()));
    rows_ = known_ ? queries.count()
                   : std::min(std::max<int64_t>(16, wanted / columns_), queries.count());
    const int64_t threads = at::get_num_threads();
    step_ = std::clamp<int64_t>(round_up(blocks_of(rows_, threads), 16), 32, 128);
    if (known_) return;
    storage_ = at::empty(
        {rows_ * columns_}, at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
    data_ = storage_.template mutable_data_ptr<T>();
  }

  int64_t max_rows() const { return std::max<int64_t>(1, rows_); }
  int64_t max_columns() const { return columns_; }

  // slopes(i, s, scratch) turns row i's similarities with the labels [col, col + cols) into its
  // coefficients, in place.
  template <typename Slopes>
  void run(int64_t row, int64_t rows, int64_t col, int64_t cols, const Slopes& slopes) {
    const int64_t d = labels_.width();
    for_each_block(
        blocks_of(rows, step_), [] { return ChunkScratch<T>(); },
        [&](int64_t number, ChunkScratch<T>& scratch) {
          const int64_t first = number * step_, r = std::min(step_, rows - first);
          T* s = data_ + first * columns_;
          const T* q = queries_.block(row + first, r, scratch.queries);
          for (int64_t c = 0; c < cols && !known_; c += kTileColumns) {
            const int64_t n = std::min(kTileColumns, cols - c);
            multiply_rows(q, r, labels_.block(col + c, n, scratch.labels), n, d, s + c, columns_);
          }
          for (int64_t i = 0; i < r; ++i) slopes(row + first + i, s + i * columns_, scratch);
          if (grad_queries_ == nullptr) return;
          const int64_t tile = labels_.wide() ? cols : kTileColumns;
          for (int64_t c = 0; c < cols; c += tile) {
            const int64_t n = std::min(tile, cols - c);
            add_product(
                s + c, columns_, r, n, labels_.block(col + c, n, scratch.labels), d,
                grad_queries_ + (row + first) * d, fresh_ && col + c == 0);
          }
        });
    if (grad_labels_ == nullptr) return;
    std::vector<T> buffer;
    const T* q = queries_.block(row, rows, buffer);
    // Each label's gradient has one owner, who adds the rows in their order.
    const int64_t share = std::clamp<int64_t>(
        round_up(blocks_of(cols, 2 * at::get_num_threads()), 64), 128, kTileColumns);
    for_each_block(blocks_of(cols, share), [&](int64_t number) {
      const int64_t c = number * share, n = std::min(share, cols - c);
      add_transposed_product(
          data_ + c, columns_, rows, n, q, d, grad_labels_ + (col + c) * d, fresh_ && row == 0);
    });
  }

 private:
  const Rows<T>&queries_, &labels_;
  T *grad_queries_, *grad_labels_;
  bool fresh_, known_;
  int64_t rows_ = 0, columns_ = 0, step_ = 0;
  at::Tensor storage_;
  T* data_;
};

}  // namespace alc
