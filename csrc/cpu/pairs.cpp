// Scores, gradients and head logits of listed pairs.
#include <limits>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "arguments.h"
#include "blocks.h"
#include "operators.h"
#include "pair_sums.h"
#include "rows.h"

namespace alc {
namespace {

// (B, t) label numbers in [-1, M), contiguous.
Tensor checked_index(const Tensor& index, int64_t rows, int64_t labels) {
  check_tensor("index", index, at::kLong);
  TORCH_CHECK_VALUE(
      index.dim() == 2 && index.size(0) == rows, "index: expected (", rows, ", t), got ",
      index.sizes());
  const Tensor x = index.contiguous();
  const int64_t* j = x.const_data_ptr<int64_t>();
  for (int64_t n = 0; n < x.numel(); ++n)
    TORCH_CHECK_INDEX(
        j[n] >= -1 && j[n] < labels, "index: label ", j[n],
        " is out of range: expected -1 <= label < ", labels);
  return x;
}

// A (B, t) tensor of coefficients, contiguous.
template <typename T>
Tensor checked_numbers(const char* name, const Tensor& x, const Tensor& index) {
  check_tensor(name, x, c10::CppTypeToScalarType<T>::value);
  TORCH_CHECK_VALUE(
      x.sizes() == index.sizes(), name, ": expected ", index.sizes(), ", got ", x.sizes());
  return x.contiguous();
}

// (B, t): value(a, b) of each listed pair, a its query and b its label; 0 where there is none.
template <typename T, typename Value>
Tensor values_of_pairs(const Embeddings<T>& rows, const Tensor& index, const Value& value) {
  const Tensor values =
      at::zeros(index.sizes(), at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
  T* out = values.mutable_data_ptr<T>();
  const int64_t* label = index.const_data_ptr<int64_t>();
  const int64_t b = rows.q.count(), t = index.size(1);
  for_each_block(blocks_of(b, kPairRows), [&](int64_t number) {
    PairScratch<T> scratch;
    const int64_t first = number * kPairRows, last = std::min(b, first + kPairRows);
    visit_pairs(label, t, first, last, [&](int64_t i, int64_t j, int64_t place) {
      out[place] = value(rows.q.row(i, scratch.a), rows.k.row(j, scratch.b));
    });
  });
  return values;
}

}  // namespace

Tensor score_pairs(const Tensor& queries, const Tensor& labels, const Tensor& index) {
  check_rows(queries, labels);
  const Tensor q = queries.contiguous(), k = labels.contiguous();
  const Tensor at_index = checked_index(index, q.size(0), k.size(0));
  const int64_t d = q.size(1);
  return by_accumulation_type(q, [&](auto zero) {
    using T = decltype(zero);
    const Embeddings<T> rows(q, k);
    return values_of_pairs(rows, at_index, [&](const T* a, const T* b) {
      return kernels<T>().dot(a, b, d);
    });
  });
}

void pair_gradient(
    const Tensor& queries, const Tensor& labels, const Tensor& index, const Tensor& coefficient,
    const MaybeTensor& grad_queries, const MaybeTensor& grad_labels) {
  check_rows(queries, labels);
  const Tensor q = queries.contiguous(), k = labels.contiguous();
  const int64_t b = q.size(0), m = k.size(0), d = q.size(1);
  const Tensor at_index = checked_index(index, b, m);
  const int64_t t = index.size(1);
  by_accumulation_type(q, [&](auto zero) {
    using T = decltype(zero);
    const Embeddings<T> rows(q, k);
    const Tensor numbers = checked_numbers<T>("coefficient", coefficient, index);
    const T* c = numbers.const_data_ptr<T>();
    const int64_t* label = at_index.const_data_ptr<int64_t>();
    T* grad_q = target_of<T>("grad_queries", grad_queries, b, d);
    T* grad_k = target_of<T>("grad_labels", grad_labels, m, d);
    add_similarities(rows, IndexPairs<T>{label, t, c}, grad_q, grad_k);
  });
}

void list_gradient(
    const Tensor& queries, const Tensor& labels, const Tensor& crow, const Tensor& col,
    const Tensor& slope, const MaybeTensor& grad_queries, const MaybeTensor& grad_labels) {
  check_rows(queries, labels);
  const Tensor q = queries.contiguous(), k = labels.contiguous();
  const int64_t b = q.size(0), m = k.size(0), d = q.size(1);
  check_tensor("crow", crow, at::kLong);
  check_tensor("col", col, at::kInt);
  TORCH_CHECK_VALUE(
      crow.dim() == 1 && crow.size(0) == b + 1 && crow.is_contiguous() && col.dim() == 1 &&
          col.is_contiguous() && b <= std::numeric_limits<int32_t>::max(),
      "crow and col: expected a list as the walk leaves it");
  const int64_t* start = crow.const_data_ptr<int64_t>();
  const int32_t* label = col.const_data_ptr<int32_t>();
  TORCH_CHECK_VALUE(
      start[0] == 0 && start[b] == col.size(0) && std::is_sorted(start, start + b + 1),
      "crow: not a row pointer from 0 to ", col.size(0));
  for (int64_t n = 0; n < col.size(0); ++n)
    TORCH_CHECK_INDEX(label[n] >= 0 && label[n] < m, "col: label ", label[n], " is out of range");
  by_accumulation_type(q, [&](auto zero) {
    using T = decltype(zero);
    const Embeddings<T> rows(q, k);
    const T c = number_of<T>("slope", slope, 0);
    T* grad_q = target_of<T>("grad_queries", grad_queries, b, d);
    T* grad_k = target_of<T>("grad_labels", grad_labels, m, d);
    if (c != 0) add_similarities(rows, ListPairs<T>{start, label, c}, grad_q, grad_k);
  });
}

Tensor pair_logits(
    const Tensor& queries, const Tensor& labels, const Tensor& index, const Tensor& weight,
    const Tensor& bias) {
  check_rows(queries, labels);
  const Tensor q = queries.contiguous(), k = labels.contiguous();
  const Tensor at_index = checked_index(index, q.size(0), k.size(0));
  const int64_t d = q.size(1);
  return by_accumulation_type(q, [&](auto zero) {
    using T = decltype(zero);
    const Embeddings<T> rows(q, k);
    Tensor keep;
    const T* w = vector_of<T>("weight", weight, 4 * d, keep);
    const T shift = number_of<T>("bias", bias, 0);
    return values_of_pairs(rows, at_index, [&](const T* a, const T* b) {
      return shift + kernels<T>().pair_logit(a, b, w, d);
    });
  });
}

Tensor pair_logits_backward(
    const Tensor& queries, const Tensor& labels, const Tensor& index, const Tensor& weight,
    const Tensor& grad, const MaybeTensor& grad_queries, const MaybeTensor& grad_labels) {
  check_rows(queries, labels);
  const Tensor q = queries.contiguous(), k = labels.contiguous();
  const int64_t b = q.size(0), m = k.size(0), d = q.size(1);
  const Tensor at_index = checked_index(index, b, m);
  const int64_t t = index.size(1);
  return by_accumulation_type(q, [&](auto zero) {
    using T = decltype(zero);
    const Embeddings<T> rows(q, k);
    Tensor keep;
    const T* w = vector_of<T>("weight", weight, 4 * d, keep);
    const Tensor numbers = checked_numbers<T>("grad", grad, index);
    const T* g = numbers.const_data_ptr<T>();
    const int64_t* label = at_index.const_data_ptr<int64_t>();
    T* grad_q = target_of<T>("grad_queries", grad_queries, b, d);
    T* grad_k = target_of<T>("grad_labels", grad_labels, m, d);
    const IndexPairs<T> pairs{label, t, g};
    // The weight's gradient: a partial sum per part of the batch, added in their order.
    const int64_t parts = std::min<int64_t>(16, std::max<int64_t>(1, b));
    const int64_t part_rows = blocks_of(b, parts);
    std::vector<T> partial(parts * 4 * d, T(0));
    for_each_block(parts, [&](int64_t part) {
      PairScratch<T> scratch;
      const int64_t first = std::min(b, part * part_rows), last = std::min(b, first + part_rows);
      pairs.visit(first, last, [&](int64_t i, int64_t j, int64_t place) {
        kernels<T>().pair_weight(
            partial.data() + part * 4 * d, rows.q.row(i, scratch.a), rows.k.row(j, scratch.b),
            g[place], d);
      });
    });
    const Tensor grad_weight =
        at::zeros({4 * d}, at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
    T* sum = grad_weight.mutable_data_ptr<T>();
    for (int64_t part = 0; part < parts; ++part)
      kernels<T>().add_scaled(sum, partial.data() + part * 4 * d, T(1), 4 * d);
    add_pairs(
        rows, pairs, grad_q, grad_k,
        [&](T* out, const T* x, const T* y, T c) { kernels<T>().pair_query(out, x, y, w, c, d); },
        [&](T* out, const T* x, const T* y, T c) { kernels<T>().pair_label(out, x, y, w, c, d); });
    return grad_weight;
  });
}

}  // namespace alc
