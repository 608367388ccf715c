// A chunk of coefficients at several prefix widths, and the products that the widths share.
//
// With G the coefficients of one width, q its factors of the rows, k of the columns (inverse norms),
// a coordinate c of the queries gets
//     sum over the widths w > c of  q_i G_ij k_j  times  labels[j, c],
// one product with the sum of the widths' scaled coefficients; the labels the transposed. What
// normalising takes off again is u (u . g), of which only u . g = sum_j G_ij s_ij is needed.
#pragma once

#include <vector>

#include <ATen/ops/empty.h>

#include "blocks.h"
#include "prefix_tiles.h"

namespace alc {

template <typename T>
class PrefixChunk {
 public:
  // factors: of the widths' losses. Adds to the gradients, null where not wanted, and to the
  // labels' dots (W, M), sum_i q_i G_ij raw_ij; sets the queries' (W, B), sum_j G_ij s_ij.
  PrefixChunk(
      const PrefixTiles<T>& tiles, const std::vector<double>& factors, T* grad_queries,
      T* grad_labels, T* query_dots, T* label_dots)
      : tiles_(tiles), factors_(factors), grad_queries_(grad_queries), grad_labels_(grad_labels),
        query_dots_(query_dots), label_dots_(label_dots), m_(tiles.labels.count()) {
    const int64_t fit = kPlaneBytes / static_cast<int64_t>(sizeof(T)) / (tiles.count() * m_);
    rows_ = std::min(std::max(fit / kStep * kStep, kStep / 2), tiles.queries.count());
    const auto real = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
    planes_ = at::empty({tiles.count() * rows_ * m_}, real);
    sums_ = at::empty({blocks_of(rows_, kStep) * tiles.count() * m_}, real);
    ones_.assign(tiles.query_scale == nullptr ? m_ : 0, T(1));
  }

  // make_scratch() once per thread; slopes(n, i, s, scratch) turns row i's similarities at width n
  // into its coefficients, in place.
  template <typename MakeScratch, typename Slopes>
  void run(const MakeScratch& make_scratch, const Slopes& slopes) {
    for (int64_t row = 0; row < tiles_.queries.count(); row += rows_)
      chunk(row, std::min(rows_, tiles_.queries.count() - row), make_scratch, slopes);
  }

 private:
  static constexpr int64_t kPlaneBytes = 16 << 20;  // of a chunk's coefficients, all widths
  static constexpr int64_t kStep = 64;              // rows that a thread takes at a time

  struct Buffers {
    std::vector<T> queries, labels, raw;
  };

  T* plane(int64_t n) { return planes_.template mutable_data_ptr<T>() + n * rows_ * m_; }

  template <typename MakeScratch, typename Slopes>
  void chunk(int64_t row, int64_t rows, const MakeScratch& make_scratch, const Slopes& slopes) {
    const int64_t widths = tiles_.count(), d = tiles_.labels.width();
    sums_.zero_();
    T* sums = sums_.template mutable_data_ptr<T>();
    const auto make = [&] { return std::make_pair(Buffers{}, make_scratch()); };
    for_each_block(blocks_of(rows, kStep), make, [&](int64_t number, auto& scratch) {
      const int64_t first = number * kStep, r = std::min(kStep, rows - first);
      T* own = sums + number * widths * m_;
      block(row, first, r, own, scratch.first, [&](int64_t n, int64_t i, T* s) {
        slopes(n, i, s, scratch.second);
      });
    });
    for (int64_t number = 0; number < blocks_of(rows, kStep); ++number)
      kernels<T>().add_scaled(label_dots_, sums + number * widths * m_, T(1), widths * m_);
    if (grad_labels_ == nullptr) return;
    std::vector<T> buffer;
    const T* q = tiles_.queries.block(row, rows, buffer);
    // Each label's gradient has one owner, who adds the rows in their order.
    const int64_t share = std::clamp<int64_t>(
        round_up(blocks_of(m_, 2 * at::get_num_threads()), 64), 128, 1024);
    for_each_block(blocks_of(m_, share), [&](int64_t number) {
      const int64_t c = number * share, size = std::min(share, m_ - c);
      for (int64_t n = 0; n < widths; ++n) {
        const int64_t from = tiles_.before(n), more = tiles_.widths[n] - from;
        at::Tensor out = matrix(grad_labels_ + c * d + from, size, more, d);
        at::addmm_out(
            out, out, matrix(plane(n) + c, rows, size, m_).t(), matrix(q + from, rows, more, d));
      }
    });
  }

  // Rows [row + first, row + first + r): coefficients into the planes, and the queries' gradient.
  template <typename Slopes>
  void block(
      int64_t row, int64_t first, int64_t r, T* sums, Buffers& buffers, const Slopes& slopes) {
    const int64_t d = tiles_.labels.width(), begin = row + first;
    const T* q = tiles_.queries.block(begin, r, buffers.queries);
    const T* k = tiles_.labels.block(0, m_, buffers.labels);
    buffers.raw.resize(r * m_);
    for (int64_t n = 0; n < tiles_.count(); ++n) {
      tiles_.grow(q, r, k, m_, n, buffers.raw.data(), m_);
      for (int64_t i = 0; i < r; ++i) {
        const T* raw = buffers.raw.data() + i * m_;
        T* s = plane(n) + (first + i) * m_;
        tiles_.scale(raw, n, begin + i, 0, m_, s);
        slopes(n, begin + i, s);
        weigh(n, begin + i, raw, s, sums + n * m_);
      }
    }
    // What a coordinate gets: the sum over the widths that have it.
    for (int64_t n = tiles_.count() - 2; n >= 0; --n)
      kernels<T>().add_scaled(plane(n) + first * m_, plane(n + 1) + first * m_, T(1), r * m_);
    if (grad_queries_ == nullptr) return;
    for (int64_t n = 0; n < tiles_.count(); ++n) {
      const int64_t from = tiles_.before(n), more = tiles_.widths[n] - from;
      at::Tensor out = matrix(grad_queries_ + begin * d + from, r, more, d);
      at::addmm_out(
          out, out, matrix(plane(n) + first * m_, r, m_, m_), matrix(k + from, m_, more, d));
    }
  }

  // The row's dots, then its coefficients times the factors of both sides.
  void weigh(int64_t n, int64_t i, const T* raw, T* g, T* sums) {
    const int64_t at = n * tiles_.queries.count() + i;
    const bool scaled = tiles_.query_scale != nullptr;
    const T q = scaled ? tiles_.query_scale[at] : T(1);
    const T* k = scaled ? tiles_.label_scale + n * m_ : ones_.data();
    const T factor = static_cast<T>(factors_[n]) * q;
    query_dots_[at] = static_cast<T>(q * kernels<T>().weigh_slopes(g, raw, k, q, factor, sums, m_));
  }

  const PrefixTiles<T>& tiles_;
  const std::vector<double>& factors_;
  T *grad_queries_, *grad_labels_, *query_dots_, *label_dots_;
  int64_t m_, rows_ = 0;
  std::vector<T> ones_;
  at::Tensor planes_, sums_;
};

}  // namespace alc
