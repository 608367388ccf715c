// The gradient of every pair, and the positive pass, chunk by chunk.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "arguments.h"
#include "gradient_chunk.h"
#include "operators.h"
#include "slopes.h"

namespace alc {
namespace {

constexpr int64_t kMaxColumns = 32768;

}  // namespace

Tensors dense_gradient(
    const Tensor& queries, const Tensor& labels, const std::string& positives_kind,
    const Tensors& positives, const std::string& exclude_kind, const Tensors& exclude,
    const MaybeTensor& guard, const MaybeTensor& row_slack, const MaybeTensor& column_slack,
    int64_t kind, const MaybeTensor& row_scale,
    const MaybeTensor& num_positives, const MaybeTensor& log_sum_exp,
    const MaybeTensor& negative_scale, const MaybeTensor& inverse_temperature,
    const MaybeTensor& label_offset, const MaybeTensor& scale, const MaybeTensor& bias,
    std::optional<double> positive_margin, const MaybeTensor& positive_margin_scale,
    std::optional<double> negative_margin, const MaybeTensor& negative_margin_scale,
    const MaybeTensor& grad_queries, const MaybeTensor& grad_labels, bool fresh,
    bool want_scalars,
    int64_t columns_kind, const MaybeTensor& columns_row_scale,
    const MaybeTensor& columns_num_positives, const MaybeTensor& columns_log_sum_exp,
    const MaybeTensor& columns_negative_scale, const MaybeTensor& similarities) {
  check_rows(queries, labels);
  TORCH_CHECK_VALUE(kind >= 0 && kind <= 3, "kind: expected 0 to 3, got ", kind);
  const Tensor q = queries.contiguous(), k = labels.contiguous();
  const int64_t b = q.size(0), m = k.size(0);
  if (fresh && (b == 0 || m == 0)) clear_gradients(grad_queries, grad_labels);
  const Relation positive("positives", positives_kind, positives, b, m);
  const Relation excluded("exclude", exclude_kind, exclude, b, m);
  return by_accumulation_type(q, [&](auto zero) {
    using T = decltype(zero);
    Tensor keep[12];
    SlopeOptions<T> options;
    options.kind = static_cast<Kind>(kind);
    options.slope = number_of<T>("inverse_temperature", inverse_temperature, 1);
    options.offset = vector_of<T>("label_offset", label_offset, m, keep[0]);
    options.scale = number_of<T>("scale", scale, 1);
    options.bias = number_of<T>("bias", bias, 0);
    options.has_positive_margin = positive_margin.has_value();
    options.positive_margin = static_cast<T>(positive_margin.value_or(0));
    options.positive_margin_scale = number_of<T>("positive_margin_scale", positive_margin_scale, 0);
    options.has_negative_margin = negative_margin.has_value();
    options.negative_margin = static_cast<T>(negative_margin.value_or(0));
    options.negative_margin_scale = number_of<T>("negative_margin_scale", negative_margin_scale, 0);
    options.want_sums = want_scalars;
    const Guard<T> limits{
        vector_of<T>("guard", guard, b, keep[1]),
        vector_of<T>("row_slack", row_slack, b, keep[10]),
        vector_of<T>("column_slack", column_slack, m, keep[11])};
    const T* scales = vector_of<T>("row_scale", row_scale, b, keep[2]);
    const int64_t* counts = vector_of<int64_t>("num_positives", num_positives, b, keep[3]);
    const T* lse = vector_of<T>("log_sum_exp", log_sum_exp, b, keep[4]);
    const T* negative = vector_of<T>("negative_scale", negative_scale, b, keep[5]);
    const bool softmax = options.kind == Kind::kSoftmax || options.kind == Kind::kDecoupled;
    TORCH_CHECK_VALUE(
        options.kind == Kind::kNone || row_scale.has_value(), "row_scale is missing");
    TORCH_CHECK_VALUE(
        !softmax || (num_positives.has_value() && log_sum_exp.has_value()),
        "num_positives or log_sum_exp is missing");
    TORCH_CHECK_VALUE(
        options.kind != Kind::kDecoupled || negative_scale.has_value(),
        "negative_scale is missing");
    ColumnSlopes<T> columns;
    columns.options.kind = static_cast<Kind>(columns_kind);
    columns.options.slope = options.slope;
    columns.row_scale = vector_of<T>("columns_row_scale", columns_row_scale, m, keep[6]);
    columns.num_positives =
        vector_of<int64_t>("columns_num_positives", columns_num_positives, m, keep[7]);
    columns.log_sum_exp = vector_of<T>("columns_log_sum_exp", columns_log_sum_exp, m, keep[8]);
    columns.negative_scale =
        vector_of<T>("columns_negative_scale", columns_negative_scale, m, keep[9]);
    const ColumnSlopes<T>* more = columns_kind == 0 ? nullptr : &columns;
    if (more != nullptr) {
      TORCH_CHECK_VALUE(
          softmax && (columns_kind == 1 || columns_kind == 2) && columns_row_scale.has_value() &&
              columns_num_positives.has_value() && columns_log_sum_exp.has_value() &&
              (columns_kind == 1 || columns_negative_scale.has_value()),
          "columns: expected a softmax beside a softmax, with all its numbers");
      columns.prepare(m, want_scalars);
    }
    T* grad_q = target_of<T>("grad_queries", grad_queries, b, q.size(1));
    T* grad_k = target_of<T>("grad_labels", grad_labels, m, q.size(1));
    T* known = target_of<T>("similarities", similarities, b, m);

    const auto type = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
    const Tensor weighted = at::zeros({want_scalars ? b : 0}, type);
    const Tensor plain = at::zeros({want_scalars ? b : 0}, type);
    T* weighted_sum = weighted.mutable_data_ptr<T>();
    T* plain_sum = plain.mutable_data_ptr<T>();

    const Rows<T> q_rows(q), k_rows(k);
    GradientChunk<T> chunk(q_rows, k_rows, kMaxColumns, grad_q, grad_k, fresh, known);
    for (int64_t row = 0; row < b; row += chunk.max_rows()) {
      const int64_t r = std::min(chunk.max_rows(), b - row);
      for (int64_t col = 0; col < m; col += chunk.max_columns()) {
        const int64_t n = std::min(chunk.max_columns(), m - col);
        chunk.run(row, r, col, n, [&](int64_t i, T* s, ChunkScratch<T>& scratch) {
          RowMask<T> mask;
          mask.begin(positive.row(i), excluded.row(i));
          mask.seek(col);
          scratch.positives.clear();
          mask.take(s, col, n, [&](int64_t column, T score) {
            scratch.positives.push_back({column, score});
          });
          limits.row(i).exclude(s, col, n);
          if (static_cast<int64_t>(scratch.spare.size()) < 2 * n) scratch.spare.resize(2 * n);
          RowSlope<T> own;
          if (scales != nullptr) own.row_scale = scales[i];
          if (lse != nullptr) own.log_sum_exp = lse[i];
          if (counts != nullptr) own.num_positives = counts[i];
          if (negative != nullptr) own.negative_scale = negative[i];
          GradientSums sums;
          write_slopes(
              options, own, more, s, col, n, scratch.positives, scratch.spare.data(), sums);
          if (want_scalars) {
            weighted_sum[i] += static_cast<T>(sums.weighted);
            plain_sum[i] += static_cast<T>(sums.plain);
          }
        });
      }
    }
    return Tensors{weighted, plain};
  });
}

Tensors positive_pass(
    const Tensor& queries, const Tensor& labels, const std::string& positives_kind,
    const Tensors& positives, const Tensor& log_sum_exp, const Tensor& inverse_temperature,
    const MaybeTensor& label_offset) {
  check_rows(queries, labels);
  const Tensor q = queries.contiguous(), k = labels.contiguous();
  const int64_t b = q.size(0), m = k.size(0), d = q.size(1);
  const Relation positive("positives", positives_kind, positives, b, m);
  return by_accumulation_type(q, [&](auto zero) {
    using T = decltype(zero);
    Tensor keep[2];
    const T* lse = vector_of<T>("log_sum_exp", log_sum_exp, b, keep[0]);
    const T* offset = vector_of<T>("label_offset", label_offset, m, keep[1]);
    const T slope = number_of<T>("inverse_temperature", inverse_temperature, 1);
    const auto type = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
    const Tensor softplus_sum = at::empty({b}, type), sigmoid_sum = at::empty({b}, type);
    T* softplus_out = softplus_sum.mutable_data_ptr<T>();
    T* sigmoid_out = sigmoid_sum.mutable_data_ptr<T>();
    const Rows<T> q_rows(q), k_rows(k);
    constexpr int64_t block = 64;
    for_each_block(
        blocks_of(b, block), [] { return ChunkScratch<T>(); },
        [&](int64_t number, ChunkScratch<T>& scratch) {
          for (int64_t i = number * block; i < std::min(b, (number + 1) * block); ++i) {
            const T* a = q_rows.row(i, scratch.queries);
            const Span span = positive.row(i);
            double first = 0, second = 0;
            for (const int64_t* j = span.begin; j != span.end; ++j) {
              const T score = kernels<T>().dot(a, k_rows.row(*j, scratch.labels), d);
              const T logit = score * slope + (offset == nullptr ? T(0) : offset[*j]);
              const double gap = static_cast<double>(lse[i]) - logit;
              first += softplus(gap);
              second += sigmoid(gap);
            }
            softplus_out[i] = static_cast<T>(first);
            sigmoid_out[i] = static_cast<T>(second);
          }
        });
    return Tensors{softplus_sum, sigmoid_sum};
  });
}

}  // namespace alc
