// The dense gradient at several prefix widths.
#include <ATen/ops/zeros.h>

#include "gradient_chunk.h"
#include "prefix_chunk.h"
#include "slopes.h"

namespace alc {

Tensors prefix_gradient(
    const Tensor& queries, const Tensor& labels, const std::string& positives_kind,
    const Tensors& positives, const std::string& exclude_kind, const Tensors& exclude,
    at::IntArrayRef widths, const MaybeTensor& query_scale, const MaybeTensor& label_scale,
    const MaybeTensor& guard, const MaybeTensor& row_slack, const MaybeTensor& column_slack,
    int64_t kind, const MaybeTensor& row_scale,
    const MaybeTensor& num_positives, const MaybeTensor& log_sum_exp,
    const MaybeTensor& negative_scale, const MaybeTensor& inverse_temperature,
    const MaybeTensor& label_offset, const MaybeTensor& scale, const MaybeTensor& bias,
    std::optional<double> positive_margin, at::ArrayRef<double> positive_margin_scales,
    std::optional<double> negative_margin, at::ArrayRef<double> negative_margin_scales,
    at::ArrayRef<double> factors, const MaybeTensor& grad_queries,
    const MaybeTensor& grad_labels) {
  check_rows(queries, labels);
  check_widths(queries, widths, query_scale, label_scale);
  TORCH_CHECK_VALUE(kind >= 0 && kind <= 3, "kind: expected 0 to 3, got ", kind);
  const Tensor q = queries.contiguous(), k = labels.contiguous();
  const int64_t b = q.size(0), m = k.size(0), count = static_cast<int64_t>(widths.size());
  TORCH_CHECK_VALUE(
      factors.size() == widths.size() &&
          (!positive_margin.has_value() || positive_margin_scales.size() == widths.size()) &&
          (!negative_margin.has_value() || negative_margin_scales.size() == widths.size()),
      "factors and the scales of the margins: expected ", count, " each");
  const bool softmax = kind == 1 || kind == 2;
  TORCH_CHECK_VALUE(kind == 0 || row_scale.has_value(), "row_scale is missing");
  TORCH_CHECK_VALUE(
      !softmax || (num_positives.has_value() && log_sum_exp.has_value()),
      "num_positives or log_sum_exp is missing");
  TORCH_CHECK_VALUE(kind != 2 || negative_scale.has_value(), "negative_scale is missing");
  const Relation positive("positives", positives_kind, positives, b, m);
  const Relation excluded("exclude", exclude_kind, exclude, b, m);
  return by_accumulation_type(q, [&](auto zero) {
    using T = decltype(zero);
    Tensor keep[10];
    SlopeOptions<T> base;
    base.kind = static_cast<Kind>(kind);
    base.slope = number_of<T>("inverse_temperature", inverse_temperature, 1);
    base.offset = vector_of<T>("label_offset", label_offset, m, keep[0]);
    base.scale = number_of<T>("scale", scale, 1);
    base.bias = number_of<T>("bias", bias, 0);
    base.has_positive_margin = positive_margin.has_value();
    base.positive_margin = static_cast<T>(positive_margin.value_or(0));
    base.has_negative_margin = negative_margin.has_value();
    base.negative_margin = static_cast<T>(negative_margin.value_or(0));
    std::vector<SlopeOptions<T>> options(count, base);
    for (int64_t n = 0; n < count; ++n) {
      if (positive_margin.has_value())
        options[n].positive_margin_scale = static_cast<T>(positive_margin_scales[n]);
      if (negative_margin.has_value())
        options[n].negative_margin_scale = static_cast<T>(negative_margin_scales[n]);
    }
    const T* by_rows = plane_of<T>("query_scale", query_scale, count, b, keep[1]);
    const T* by_columns = plane_of<T>("label_scale", label_scale, count, m, keep[2]);
    const Guard<T> limits{
        plane_of<T>("guard", guard, count, b, keep[3]),
        plane_of<T>("row_slack", row_slack, count, b, keep[8]),
        plane_of<T>("column_slack", column_slack, count, m, keep[9])};
    const T* scales = plane_of<T>("row_scale", row_scale, count, b, keep[4]);
    const T* lse = plane_of<T>("log_sum_exp", log_sum_exp, count, b, keep[5]);
    const T* negative = plane_of<T>("negative_scale", negative_scale, count, b, keep[6]);
    const int64_t* counts = vector_of<int64_t>("num_positives", num_positives, b, keep[7]);
    T* grad_q = target_of<T>("grad_queries", grad_queries, b, q.size(1));
    T* grad_k = target_of<T>("grad_labels", grad_labels, m, q.size(1));
    const auto real = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
    const Tensor query_dots = at::zeros({count, b}, real), label_dots = at::zeros({count, m}, real);
    if (b == 0 || m == 0) return Tensors{query_dots, label_dots};

    const Rows<T> q_rows(q), k_rows(k);
    const PrefixTiles<T> tiles{q_rows, k_rows, widths, by_rows, by_columns};
    const std::vector<double> weights = factors.vec();
    PrefixChunk<T> chunk(
        tiles, weights, grad_q, grad_k, query_dots.mutable_data_ptr<T>(),
        label_dots.mutable_data_ptr<T>());
    const auto make_scratch = [&] {
      ChunkScratch<T> scratch;
      scratch.spare.resize(2 * m);
      return scratch;
    };
    chunk.run(make_scratch, [&](int64_t n, int64_t i, T* s, ChunkScratch<T>& scratch) {
      RowMask<T> mask;
      mask.begin(positive.row(i), excluded.row(i));
      scratch.positives.clear();
      mask.take(s, 0, m, [&](int64_t column, T score) {
        scratch.positives.push_back({column, score});
      });
      const int64_t at = n * b + i;
      limits.row(at, n * m).exclude(s, 0, m);
      RowSlope<T> own;
      if (scales != nullptr) own.row_scale = scales[at];
      if (lse != nullptr) own.log_sum_exp = lse[at];
      if (negative != nullptr) own.negative_scale = negative[at];
      if (counts != nullptr) own.num_positives = counts[i];
      GradientSums sums;
      write_slopes<T>(
          options[n], own, nullptr, s, 0, m, scratch.positives, scratch.spare.data(), sums);
    });
    return Tensors{query_dots, label_dots};
  });
}

}  // namespace alc
