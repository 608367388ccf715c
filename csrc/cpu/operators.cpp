// Registration: torch.ops.alc_kernels_native.
#include <torch/library.h>

#include "operators.h"
#include "simd/kernels.h"

namespace alc {
namespace {

#define ALC_RELATIONS                                                           \
  "Tensor queries, Tensor labels, str positives_kind, Tensor[] positives, "     \
  "str exclude_kind, Tensor[] exclude, "

std::string simd() { return kernels<float>().name; }

}  // namespace

TORCH_LIBRARY_FRAGMENT(alc_kernels_native, library) {
  library.def(
      "walk(" ALC_RELATIONS
      "Tensor? guard, Tensor? row_slack, Tensor? column_slack, int top_k, bool hardest_positive, "
      "int softmax, Tensor? inverse_temperature, "
      "Tensor? label_offset, bool sigmoid, Tensor? scale, Tensor? bias, float? positive_margin, "
      "float? negative_margin, int active_capacity, Tensor? row_scale, Tensor(a!)? grad_queries, "
      "Tensor(b!)? grad_labels, bool fresh, bool want_scalars, int columns_softmax, bool keep_similarities) "
      "-> Tensor[]");
  library.def(
      "prefix_walk(" ALC_RELATIONS
      "int[] widths, Tensor? query_scale, Tensor? label_scale, Tensor? guard, Tensor? row_slack, "
      "Tensor? column_slack, int top_k, "
      "bool hardest_positive, int softmax, Tensor? inverse_temperature, Tensor? label_offset, "
      "bool sigmoid, Tensor? scale, Tensor? bias, float? positive_margin, float? negative_margin, "
      "int active_capacity, Tensor? row_scale, float[] factors, Tensor(a!)? grad_queries, "
      "Tensor(b!)? grad_labels, bool want_scalars) -> Tensor[]");
  library.def(
      "prefix_gradient(" ALC_RELATIONS
      "int[] widths, Tensor? query_scale, Tensor? label_scale, Tensor? guard, Tensor? row_slack, "
      "Tensor? column_slack, int kind, "
      "Tensor? row_scale, Tensor? num_positives, Tensor? log_sum_exp, Tensor? negative_scale, "
      "Tensor? inverse_temperature, Tensor? label_offset, Tensor? scale, Tensor? bias, "
      "float? positive_margin, float[] positive_margin_scales, float? negative_margin, "
      "float[] negative_margin_scales, float[] factors, Tensor(a!)? grad_queries, "
      "Tensor(b!)? grad_labels) -> Tensor[]");
  library.def(
      "count_pairs(Tensor queries, Tensor labels, str positives_kind, Tensor[] positives, "
      "str exclude_kind, Tensor[] exclude) -> Tensor[]");
  library.def(
      "dense_gradient(" ALC_RELATIONS
      "Tensor? guard, Tensor? row_slack, Tensor? column_slack, int kind, Tensor? row_scale, Tensor? num_positives, Tensor? log_sum_exp, "
      "Tensor? negative_scale, Tensor? inverse_temperature, Tensor? label_offset, Tensor? scale, "
      "Tensor? bias, float? positive_margin, Tensor? positive_margin_scale, "
      "float? negative_margin, Tensor? negative_margin_scale, Tensor(a!)? grad_queries, "
      "Tensor(b!)? grad_labels, bool fresh, bool want_scalars, int columns_kind, "
      "Tensor? columns_row_scale, "
      "Tensor? columns_num_positives, Tensor? columns_log_sum_exp, "
      "Tensor? columns_negative_scale, Tensor(c!)? similarities) -> Tensor[]");
  library.def(
      "positive_pass(Tensor queries, Tensor labels, str positives_kind, Tensor[] positives, "
      "Tensor log_sum_exp, Tensor inverse_temperature, Tensor? label_offset) -> Tensor[]");
  library.def(
      "list_gradient(Tensor queries, Tensor labels, Tensor crow, Tensor col, Tensor slope, "
      "Tensor(a!)? grad_queries, Tensor(b!)? grad_labels) -> ()");
  library.def("score_pairs(Tensor queries, Tensor labels, Tensor index) -> Tensor");
  library.def(
      "pair_gradient(Tensor queries, Tensor labels, Tensor index, Tensor coefficient, "
      "Tensor(a!)? grad_queries, Tensor(b!)? grad_labels) -> ()");
  library.def(
      "pair_logits(Tensor queries, Tensor labels, Tensor index, Tensor weight, Tensor bias) "
      "-> Tensor");
  library.def(
      "pair_logits_backward(Tensor queries, Tensor labels, Tensor index, Tensor weight, "
      "Tensor grad, Tensor(a!)? grad_queries, Tensor(b!)? grad_labels) -> Tensor");
  library.def(
      "normalize_rows(Tensor x, ScalarType dtype, bool normalize) -> (Tensor, Tensor, Tensor)");
  library.def(
      "normalize_both(Tensor queries, Tensor labels, ScalarType dtype, bool normalize) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "normalize_rows_backward(Tensor grad, Tensor x, Tensor? inverse_norm, Tensor upstream) "
      "-> Tensor");
  library.def("simd() -> str", simd);
}

TORCH_LIBRARY_IMPL(alc_kernels_native, CPU, library) {
  library.impl("walk", walk);
  library.impl("prefix_walk", prefix_walk);
  library.impl("prefix_gradient", prefix_gradient);
  library.impl("count_pairs", count_pairs);
  library.impl("dense_gradient", dense_gradient);
  library.impl("positive_pass", positive_pass);
  library.impl("list_gradient", list_gradient);
  library.impl("score_pairs", score_pairs);
  library.impl("pair_gradient", pair_gradient);
  library.impl("pair_logits", pair_logits);
  library.impl("pair_logits_backward", pair_logits_backward);
  library.impl("normalize_rows", normalize_rows);
  library.impl("normalize_both", normalize_both);
  library.impl("normalize_rows_backward", normalize_rows_backward);
}

}  // namespace alc
