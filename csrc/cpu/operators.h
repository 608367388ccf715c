// The operators that operators.cpp registers; documented in alc_kernels/engine/interface.py.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/core/Tensor.h>

namespace alc {

using at::Tensor;
using MaybeTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;

Tensors walk(
    const Tensor& queries, const Tensor& labels, const std::string& positives_kind,
    const Tensors& positives, const std::string& exclude_kind, const Tensors& exclude,
    const MaybeTensor& guard, const MaybeTensor& row_slack, const MaybeTensor& column_slack,
    int64_t top_k, bool hardest_positive, int64_t softmax,
    const MaybeTensor& inverse_temperature, const MaybeTensor& label_offset, bool sigmoid,
    const MaybeTensor& scale, const MaybeTensor& bias, std::optional<double> positive_margin,
    std::optional<double> negative_margin, int64_t active_capacity, const MaybeTensor& row_scale,
    const MaybeTensor& grad_queries, const MaybeTensor& grad_labels, bool fresh,
    bool want_scalars,
    int64_t columns_softmax, bool keep_similarities);

Tensors prefix_walk(
    const Tensor& queries, const Tensor& labels, const std::string& positives_kind,
    const Tensors& positives, const std::string& exclude_kind, const Tensors& exclude,
    at::IntArrayRef widths, const MaybeTensor& query_scale, const MaybeTensor& label_scale,
    const MaybeTensor& guard, const MaybeTensor& row_slack, const MaybeTensor& column_slack,
    int64_t top_k, bool hardest_positive, int64_t softmax,
    const MaybeTensor& inverse_temperature, const MaybeTensor& label_offset, bool sigmoid,
    const MaybeTensor& scale, const MaybeTensor& bias, std::optional<double> positive_margin,
    std::optional<double> negative_margin, int64_t active_capacity, const MaybeTensor& row_scale,
    at::ArrayRef<double> factors, const MaybeTensor& grad_queries,
    const MaybeTensor& grad_labels, bool want_scalars);

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
    const MaybeTensor& grad_labels);

Tensors count_pairs(
    const Tensor& queries, const Tensor& labels, const std::string& positives_kind,
    const Tensors& positives, const std::string& exclude_kind, const Tensors& exclude);

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
    const MaybeTensor& columns_negative_scale, const MaybeTensor& similarities);

Tensors positive_pass(
    const Tensor& queries, const Tensor& labels, const std::string& positives_kind,
    const Tensors& positives, const Tensor& log_sum_exp, const Tensor& inverse_temperature,
    const MaybeTensor& label_offset);

void list_gradient(
    const Tensor& queries, const Tensor& labels, const Tensor& crow, const Tensor& col,
    const Tensor& slope, const MaybeTensor& grad_queries, const MaybeTensor& grad_labels);

Tensor score_pairs(const Tensor& queries, const Tensor& labels, const Tensor& index);

void pair_gradient(
    const Tensor& queries, const Tensor& labels, const Tensor& index, const Tensor& coefficient,
    const MaybeTensor& grad_queries, const MaybeTensor& grad_labels);

Tensor pair_logits(
    const Tensor& queries, const Tensor& labels, const Tensor& index, const Tensor& weight,
    const Tensor& bias);

Tensor pair_logits_backward(
    const Tensor& queries, const Tensor& labels, const Tensor& index, const Tensor& weight,
    const Tensor& grad, const MaybeTensor& grad_queries, const MaybeTensor& grad_labels);

std::tuple<Tensor, Tensor, Tensor> normalize_rows(
    const Tensor& x, at::ScalarType dtype, bool normalize);

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> normalize_both(
    const Tensor& queries, const Tensor& labels, at::ScalarType dtype, bool normalize);

Tensor normalize_rows_backward(
    const Tensor& grad, const Tensor& x, const MaybeTensor& inverse_norm, const Tensor& upstream);

}  // namespace alc
