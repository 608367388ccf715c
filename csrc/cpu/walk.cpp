// The walk: one pass over the similarities, tile by tile; with `row_scale` also the gradient of a
// dense base loss, so that the similarities are computed once for both.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "arguments.h"
#include "blocks.h"
#include "column_scan.h"
#include "gradient_chunk.h"
#include "operators.h"
#include "product.h"
#include "row_outputs.h"
#include "rows.h"
#include "slopes.h"

namespace alc {
namespace {

constexpr int64_t kTileElements = 128 * 1024;
constexpr size_t kWithColumns = 19;  // results before the similarities, sums and active pairs

template <typename T>
struct WalkScratch {
  std::vector<T> queries, labels, tile;
  std::vector<RowScan<T>> scans;
  std::vector<ActiveLists> active;
  std::vector<Pair<T>> positives;
  std::vector<std::pair<T*, T>> taken;  // out of similarities that are kept
  typename ColumnScan<T>::Scratch columns;
};

template <typename T>
struct Walk {
  const Rows<T>&queries, &labels;
  const Relation &positives, &exclude;
  const Guard<T>& guard;
  const ScanOptions<T>& options;
  RowOutputs<T>& outputs;
  ActivePairs& active;
  T* kept;  // (B, M) for all similarities, beside the columns' statistics; or null

  void begin(RowScan<T>& scan, int64_t i) const {
    scan.begin(options, positives.row(i), exclude.row(i), labels.count(), guard.row(i));
  }

  // Tiles that stay in the cache; every row's state stays with its block.
  int64_t tile_height() const {
    const auto root = static_cast<int64_t>(4.0 * std::sqrt(static_cast<double>(queries.count())));
    return std::clamp<int64_t>(round_up(root, 16), 16, 256);
  }

  void run(ColumnScan<T>* columns) const {
    const int64_t height = tile_height(), blocks = blocks_of(queries.count(), height);
    const int64_t most = std::max<int64_t>(labels.count(), 1);
    const int64_t width = std::min(round_up(kTileElements / height, 64), most);
    const auto make_scratch = [&] {
      WalkScratch<T> scratch;
      scratch.tile.resize(height * width);
      scratch.scans.resize(height);
      scratch.active.resize(height);
      return scratch;
    };
    const int64_t groups = columns == nullptr ? blocks : columns->groups();
    const int64_t size = groups == 0 ? 0 : blocks_of(blocks, groups);
    for_each_block(groups, make_scratch, [&](int64_t group, WalkScratch<T>& scratch) {
      for (int64_t number = group * size; number < std::min(blocks, (group + 1) * size); ++number)
        block(number * height, std::min(height, queries.count() - number * height), width, columns,
              group, scratch);
    });
  }

  // Rows [row, row + r), in tiles of `width` columns.
  void block(
      int64_t row, int64_t r, int64_t width, ColumnScan<T>* columns, int64_t group,
      WalkScratch<T>& scratch) const {
    const int64_t d = labels.width();
    const T* q = queries.block(row, r, scratch.queries);
    for (int64_t i = 0; i < r; ++i) {
      begin(scratch.scans[i], row + i);
      scratch.active[i] = {};
    }
    const bool keep = options.keep_active && active.wanted();
    for (int64_t col = 0; col < labels.count(); col += width) {
      const int64_t n = std::min(width, labels.count() - col);
      const int64_t stride = kept == nullptr ? width : labels.count();
      T* tile = kept == nullptr ? scratch.tile.data() : kept + row * stride + col;
      multiply_rows(q, r, labels.block(col, n, scratch.labels), n, d, tile, stride);
      scratch.taken.clear();
      for (int64_t i = 0; i < r; ++i) {
        scratch.positives.clear();
        scratch.scans[i].tile(
            options, tile + i * stride, col, n, keep ? &scratch.active[i] : nullptr,
            columns == nullptr ? nullptr : &scratch.positives);
        for (const Pair<T>& pair : scratch.positives) {
          columns->positive(group, pair);
          if (kept != nullptr)
            scratch.taken.push_back({tile + i * stride + pair.column - col, pair.score});
        }
      }
      if (columns != nullptr) columns->tile(group, tile, stride, r, col, n, scratch.columns);
      for (const auto& [place, score] : scratch.taken) *place = score;
    }
    for (int64_t i = 0; i < r; ++i) {
      outputs.write(options, scratch.scans[i], row + i);
      if (keep) active.keep(row + i, scratch.active[i]);
    }
  }

  // The same with whole rows in a chunk, followed by their gradient.
  void run_with_gradient(
      const SlopeOptions<T>& slopes, const T* row_scale, T* grad_queries, T* grad_labels,
      bool fresh) const {
    const int64_t rows = queries.count(), columns = labels.count();
    GradientChunk<T> chunk(queries, labels, columns, grad_queries, grad_labels, fresh);
    for (int64_t row = 0; row < rows; row += chunk.max_rows()) {
      const int64_t r = std::min(chunk.max_rows(), rows - row);
      chunk.run(row, r, 0, columns, [&](int64_t i, T* s, ChunkScratch<T>& scratch) {
        scratch.positives.clear();
        ActiveLists found;
        const bool keep = options.keep_active && active.wanted();
        begin(scratch.scan, i);
        scratch.scan.tile(
            options, s, 0, columns, keep ? &found : nullptr, &scratch.positives);
        outputs.write(options, scratch.scan, i);
        if (keep) active.keep(i, found);
        RowSlope<T> own{row_scale[i], 0, scratch.scan.num_positives};
        own.complete = true;
        if (options.softmax != Softmax::kNone) own.log_sum_exp = scratch.scan.log_sum_exp();
        if (slopes.kind == Kind::kDecoupled)
          own.negative_scale = decoupled_scale(slopes, own, scratch.positives);
        GradientSums sums;
        write_slopes<T>(slopes, own, nullptr, s, 0, columns, scratch.positives, nullptr, sums);
        if (slopes.want_sums) {
          outputs.weighted_sum[i] = static_cast<T>(sums.weighted);
          outputs.plain_sum[i] = static_cast<T>(sums.plain);
        }
      });
    }
  }
};

// The walk, and the columns' statistics: counts of positives and negatives, log-sum-exp, sum of the
// positives' logits, appended to `outputs`.
template <typename T>
void walk_columns(const Walk<T>& walk, Softmax kind, Tensors& outputs) {
  const int64_t b = walk.queries.count(), m = walk.labels.count();
  ColumnScan<T> columns(
      kind == Softmax::kNegatives, walk.options.slope, m, blocks_of(b, walk.tile_height()));
  walk.run(&columns);
  const auto real = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
  const Tensor num_positives = at::zeros({m}, at::kLong), num_negatives = at::full({m}, b, at::kLong);
  int64_t* positives = num_positives.mutable_data_ptr<int64_t>();
  int64_t* negatives = num_negatives.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < b; ++i) {
    const Span own = walk.positives.row(i);
    for (const int64_t* j = own.begin; j != own.end; ++j) ++positives[*j];
    visit_union(own, walk.exclude.row(i), [&](int64_t j) { --negatives[j]; });
  }
  const Tensor log_sum_exp = at::empty({m}, real), logit_sum = at::empty({m}, real);
  columns.write(log_sum_exp.mutable_data_ptr<T>(), logit_sum.mutable_data_ptr<T>());
  for (const Tensor& made : {num_positives, num_negatives, log_sum_exp, logit_sum})
    outputs.push_back(made);
}

}  // namespace

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
    int64_t columns_softmax, bool keep_similarities) {
  check_rows(queries, labels);
  TORCH_CHECK_VALUE(
      columns_softmax >= 0 && columns_softmax <= 2, "columns_softmax: expected 0, 1 or 2, got ",
      columns_softmax);
  TORCH_CHECK_VALUE(
      columns_softmax == 0 || (softmax != 0 && !guard.has_value() && !row_scale.has_value()),
      "columns_softmax: only beside a softmax, without guard and row_scale");
  TORCH_CHECK_VALUE(top_k >= 0, "top_k: expected >= 0, got ", top_k);
  TORCH_CHECK_VALUE(softmax >= 0 && softmax <= 2, "softmax: expected 0, 1 or 2, got ", softmax);
  const Tensor q = queries.contiguous(), k = labels.contiguous();
  const int64_t b = q.size(0), m = k.size(0);
  if (fresh && (b == 0 || m == 0)) clear_gradients(grad_queries, grad_labels);
  const Relation positive("positives", positives_kind, positives, b, m);
  const Relation excluded("exclude", exclude_kind, exclude, b, m);
  return by_accumulation_type(q, [&](auto zero) {
    using T = decltype(zero);
    Tensor keep[5];
    ScanOptions<T> options;
    options.top_k = top_k;
    options.hardest_positive = hardest_positive;
    options.softmax = static_cast<Softmax>(softmax);
    options.slope = number_of<T>("inverse_temperature", inverse_temperature, 1);
    options.offset = vector_of<T>("label_offset", label_offset, m, keep[0]);
    options.sigmoid = sigmoid;
    options.scale = number_of<T>("scale", scale, 1);
    options.bias = number_of<T>("bias", bias, 0);
    options.has_positive_margin = positive_margin.has_value();
    options.positive_margin = static_cast<T>(positive_margin.value_or(0));
    options.has_negative_margin = negative_margin.has_value();
    options.negative_margin = static_cast<T>(negative_margin.value_or(0));
    options.keep_active = active_capacity > 0;
    TORCH_CHECK_VALUE(
        !options.keep_active || m <= std::numeric_limits<int32_t>::max(),
        "active_capacity: lists hold 32-bit labels, there are ", m);
    const Guard<T> limits{
        vector_of<T>("guard", guard, b, keep[1]),
        vector_of<T>("row_slack", row_slack, b, keep[3]),
        vector_of<T>("column_slack", column_slack, m, keep[4])};
    const T* scales = vector_of<T>("row_scale", row_scale, b, keep[2]);
    T* grad_q = target_of<T>("grad_queries", grad_queries, b, q.size(1));
    T* grad_k = target_of<T>("grad_labels", grad_labels, m, q.size(1));
    TORCH_CHECK_VALUE(
        !row_scale.has_value() || ((softmax != 0) != sigmoid),
        "row_scale: the gradient is that of one softmax or sigmoid loss");

    RowOutputs<T> outputs(options, b, row_scale.has_value() && want_scalars);
    ActivePairs active(b, active_capacity);
    const Rows<T> q_rows(q), k_rows(k);
    const bool kept = keep_similarities && columns_softmax != 0 &&
                      b * m * static_cast<int64_t>(sizeof(T)) <= kChunkBytes;
    const Tensor similarities = at::empty(
        {kept ? b : 0, kept ? m : 0}, at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
    T* room = kept ? similarities.mutable_data_ptr<T>() : nullptr;
    const Walk<T> walk{q_rows, k_rows, positive, excluded, limits, options, outputs, active, room};
    if (columns_softmax != 0) {
      walk_columns(walk, static_cast<Softmax>(columns_softmax), outputs.all);
    } else if (!row_scale.has_value()) {
      walk.run(nullptr);
    } else {
      SlopeOptions<T> slopes;
      slopes.kind = sigmoid ? Kind::kSigmoid : static_cast<Kind>(softmax);
      slopes.slope = options.slope;
      slopes.offset = options.offset;
      slopes.scale = options.scale;
      slopes.bias = options.bias;
      slopes.want_sums = want_scalars;
      walk.run_with_gradient(slopes, scales, grad_q, grad_k, fresh);
    }
    outputs.all.resize(kWithColumns);
    outputs.all.push_back(similarities);
    const MarginTotals<T> totals(options, outputs, b);
    Tensors made = outputs.all;
    made.push_back(totals.sums);
    made.push_back(totals.counts);
    for (Tensor& part : active.tensors(totals.active)) made.push_back(part);
    return made;
  });
}

Tensors count_pairs(
    const Tensor& queries, const Tensor& labels, const std::string& positives_kind,
    const Tensors& positives, const std::string& exclude_kind, const Tensors& exclude) {
  const int64_t b = queries.size(0), m = labels.size(0);
  const Relation positive("positives", positives_kind, positives, b, m);
  const Relation excluded("exclude", exclude_kind, exclude, b, m);
  const Tensor counts = at::empty({2, b}, at::kLong);
  int64_t* out = counts.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < b; ++i) {
    out[i] = positive.row(i).size();
    out[b + i] = m - union_size(positive.row(i), excluded.row(i));
  }
  return {counts.select(0, 0), counts.select(0, 1)};
}

}  // namespace alc
