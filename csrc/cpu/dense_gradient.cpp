#include <optional>

#include "gradient_chunk.h"
#include "passes.h"
#include "relation.h"
#include "slopes.h"

namespace alc {
namespace {

constexpr int64_t kMaxColumns = 32768;

bool is_softmax(int64_t kind) { return kind == 1 || kind == 2; }

template <typename T>
void check(const DenseRequest<T>& request) {
  const SlopeRequest<T>&rows = request.rows, &columns = request.columns;
  expect(rows.kind == 0 || rows.row_scale != nullptr, "row_scale is missing");
  expect(
      !is_softmax(rows.kind) || (rows.num_positives != nullptr && rows.log_sum_exp != nullptr),
      "num_positives or log_sum_exp is missing");
  expect(rows.kind != 2 || rows.negative_scale != nullptr, "negative_scale is missing");
  expect(
      columns.kind == 0 ||
          (is_softmax(rows.kind) && is_softmax(columns.kind) && columns.row_scale != nullptr &&
           columns.num_positives != nullptr && columns.log_sum_exp != nullptr &&
           (columns.kind == 1 || columns.negative_scale != nullptr)),
      "columns: expected a softmax beside a softmax, with all its numbers");
}

}  // namespace

template <typename T>
void dense_gradient(const Problem<T>& problem, const DenseRequest<T>& request) {
  check(request);
  const Tiles<T> tiles(problem);
  const Relations relations(problem);
  const int64_t b = problem.rows, m = problem.columns;
  const SlopeRequest<T>& rows = request.rows;
  const Targets<T>& to = request.targets;
  const bool want_sums = to.weighted_sum != nullptr;
  std::vector<SlopeOptions<T>> options(
      tiles.count(),
      SlopeOptions<T>(Formula<T>(request.formula), static_cast<Kind>(rows.kind), want_sums));
  for (int64_t n = 0; n < tiles.count(); ++n) {
    if (request.positive_margin_scale != nullptr)
      options[n].positive_margin_scale = request.positive_margin_scale[n];
    if (request.negative_margin_scale != nullptr)
      options[n].negative_margin_scale = request.negative_margin_scale[n];
  }
  std::optional<ColumnSlopes<T>> columns;
  if (request.columns.kind != 0) {
    expect(tiles.plain(), "columns: only at one width");
    columns.emplace(request.columns, options[0].slope, m, want_sums);
  }
  GradientChunk<T> chunk(tiles, to, kMaxColumns, request.similarities);
  chunk.run([&](int64_t n, int64_t i, T* s, int64_t col, int64_t c, ChunkScratch<T>& scratch) {
    RowMask<T> mask;
    mask.begin(relations.positives.row(i), relations.exclude.row(i));
    mask.seek(col);
    scratch.positives.clear();
    mask.take(s, col, c, [&](int64_t column, T score) {
      scratch.positives.push_back({column, score});
    });
    tiles.limit(n, i).exclude(s, col, c);
    if (static_cast<int64_t>(scratch.spare.size()) < 2 * c) scratch.spare.resize(2 * c);
    const int64_t at = n * b + i;
    RowSlope<T> own;
    if (rows.row_scale != nullptr) own.row_scale = rows.row_scale[at];
    if (rows.log_sum_exp != nullptr) own.log_sum_exp = rows.log_sum_exp[at];
    if (rows.num_positives != nullptr) own.num_positives = rows.num_positives[i];
    if (rows.negative_scale != nullptr) own.negative_scale = rows.negative_scale[at];
    GradientSums sums;
    write_slopes(
        options[n], own, columns ? &*columns : nullptr, s, col, c, scratch.positives,
        scratch.spare.data(), sums);
    if (want_sums) {
      if (col == 0) to.weighted_sum[at] = to.plain_sum[at] = 0;
      to.weighted_sum[at] += static_cast<T>(sums.weighted);
      to.plain_sum[at] += static_cast<T>(sums.plain);
    }
  });
}

template <typename T>
void positive_pass(const Problem<T>& problem, const PositiveRequest<T>& request) {
  const Tiles<T> tiles(problem);
  const Relations relations(problem);
  const Formula<T> formula(request.formula);
  constexpr int64_t block = 64;
  for_each_block(
      blocks_of(problem.rows, block), [] { return ChunkScratch<T>(); },
      [&](int64_t number, ChunkScratch<T>& scratch) {
        for (int64_t i = number * block; i < std::min(problem.rows, (number + 1) * block); ++i) {
          const T* a = tiles.queries.row(i, scratch.queries);
          const Span span = relations.positives.row(i);
          double first = 0, second = 0;
          for (const int64_t* j = span.begin; j != span.end; ++j) {
            const T score = kernels<T>().dot(a, tiles.labels.row(*j, scratch.labels), problem.dim);
            const T offset = formula.offset == nullptr ? T(0) : formula.offset[*j];
            const T logit = score * formula.slope + offset;
            const double gap = static_cast<double>(request.log_sum_exp[i]) - logit;
            first += softplus(gap);
            second += sigmoid(gap);
          }
          request.softplus_sum[i] = static_cast<T>(first);
          request.sigmoid_sum[i] = static_cast<T>(second);
        }
      });
}

template void dense_gradient(const Problem<float>&, const DenseRequest<float>&);
template void dense_gradient(const Problem<double>&, const DenseRequest<double>&);
template void positive_pass(const Problem<float>&, const PositiveRequest<float>&);
template void positive_pass(const Problem<double>&, const PositiveRequest<double>&);

}  // namespace alc
