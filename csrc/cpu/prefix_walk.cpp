// The walk at several prefix widths; with `row_scale` also the gradient of a dense base loss.
#include <memory>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "gradient_chunk.h"
#include "prefix_chunk.h"
#include "row_outputs.h"
#include "slopes.h"

namespace alc {
namespace {

constexpr int64_t kTileElements = 128 * 1024;

template <typename T>
struct PrefixScratch {
  std::vector<T> queries, labels, raw, row;
  std::vector<RowScan<T>> scans;  // (W, rows)
  std::vector<ActiveLists> active;
};

template <typename T>
struct PrefixWalk {
  const PrefixTiles<T>& tiles;
  const Relation &positives, &exclude;
  const Guard<T>& guard;  // a plane per width
  const ScanOptions<T>& options;
  std::vector<RowOutputs<T>>& outputs;
  std::vector<std::unique_ptr<ActivePairs>>& active;

  int64_t rows() const { return tiles.queries.count(); }
  int64_t columns() const { return tiles.labels.count(); }

  void begin(RowScan<T>& scan, int64_t n, int64_t i) const {
    scan.begin(
        options, positives.row(i), exclude.row(i), columns(),
        guard.row(n * rows() + i, n * columns()));
  }

  void run() const {
    const auto root = static_cast<int64_t>(4.0 * std::sqrt(static_cast<double>(rows())));
    const int64_t height = std::clamp<int64_t>(round_up(root, 16), 16, 256);
    const int64_t most = std::max<int64_t>(columns(), 1);
    const int64_t width = std::min(round_up(kTileElements / height, 64), most);
    const auto make_scratch = [&] {
      PrefixScratch<T> scratch;
      scratch.raw.resize(height * width);
      scratch.row.resize(width);
      scratch.scans.resize(tiles.count() * height);
      scratch.active.resize(tiles.count() * height);
      return scratch;
    };
    for_each_block(
        blocks_of(rows(), height), make_scratch,
        [&](int64_t number, PrefixScratch<T>& scratch) {
          const int64_t row = number * height;
          block(row, std::min(height, rows() - row), height, width, scratch);
        });
  }

  // Rows [row, row + r), in tiles of `width` columns; state of width n, row i at n * height + i.
  void block(
      int64_t row, int64_t r, int64_t height, int64_t width, PrefixScratch<T>& scratch) const {
    const T* q = tiles.queries.block(row, r, scratch.queries);
    for (int64_t n = 0; n < tiles.count(); ++n)
      for (int64_t i = 0; i < r; ++i) {
        begin(scratch.scans[n * height + i], n, row + i);
        scratch.active[n * height + i] = {};
      }
    for (int64_t col = 0; col < columns(); col += width) {
      const int64_t c = std::min(width, columns() - col);
      const T* k = tiles.labels.block(col, c, scratch.labels);
      for (int64_t n = 0; n < tiles.count(); ++n) {
        tiles.grow(q, r, k, c, n, scratch.raw.data(), width);
        const bool keep = options.keep_active && active[n]->wanted();
        for (int64_t i = 0; i < r; ++i) {
          tiles.scale(scratch.raw.data() + i * width, n, row + i, col, c, scratch.row.data());
          scratch.scans[n * height + i].tile(
              options, scratch.row.data(), col, c,
              keep ? &scratch.active[n * height + i] : nullptr, nullptr);
        }
      }
    }
    for (int64_t n = 0; n < tiles.count(); ++n)
      for (int64_t i = 0; i < r; ++i) {
        outputs[n].write(options, scratch.scans[n * height + i], row + i);
        if (options.keep_active) active[n]->keep(row + i, scratch.active[n * height + i]);
      }
  }

  // The same with whole rows in a chunk, followed by their gradient.
  void run_with_gradient(
      const SlopeOptions<T>& slopes, const T* row_scale, PrefixChunk<T>& chunk) const {
    chunk.run([] { return ChunkScratch<T>(); }, [&](int64_t n, int64_t i, T* s,
                                                    ChunkScratch<T>& scratch) {
      scratch.positives.clear();
      ActiveLists found;
      const bool keep = options.keep_active && active[n]->wanted();
      begin(scratch.scan, n, i);
      scratch.scan.tile(options, s, 0, columns(), keep ? &found : nullptr, &scratch.positives);
      outputs[n].write(options, scratch.scan, i);
      if (keep) active[n]->keep(i, found);
      RowSlope<T> own{row_scale[i], 0, scratch.scan.num_positives};
      own.complete = true;
      if (options.softmax != Softmax::kNone) own.log_sum_exp = scratch.scan.log_sum_exp();
      if (slopes.kind == Kind::kDecoupled)
        own.negative_scale = decoupled_scale(slopes, own, scratch.positives);
      GradientSums sums;
      write_slopes<T>(
          slopes, own, nullptr, s, 0, columns(), scratch.positives, nullptr, sums);
      if (slopes.want_sums) {
        outputs[n].weighted_sum[i] = static_cast<T>(sums.weighted);
        outputs[n].plain_sum[i] = static_cast<T>(sums.plain);
      }
    });
  }
};

}  // namespace

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
    const MaybeTensor& grad_labels, bool want_scalars) {
  check_rows(queries, labels);
  check_widths(queries, widths, query_scale, label_scale);
  TORCH_CHECK_VALUE(top_k >= 0, "top_k: expected >= 0, got ", top_k);
  TORCH_CHECK_VALUE(softmax >= 0 && softmax <= 2, "softmax: expected 0, 1 or 2, got ", softmax);
  TORCH_CHECK_VALUE(
      !row_scale.has_value() ||
          ((softmax != 0) != sigmoid && !guard.has_value() && factors.size() == widths.size()),
      "row_scale: expected one softmax or sigmoid loss without guard, and a factor per width");
  const Tensor q = queries.contiguous(), k = labels.contiguous();
  const int64_t b = q.size(0), m = k.size(0), count = static_cast<int64_t>(widths.size());
  const Relation positive("positives", positives_kind, positives, b, m);
  const Relation excluded("exclude", exclude_kind, exclude, b, m);
  return by_accumulation_type(q, [&](auto zero) {
    using T = decltype(zero);
    Tensor keep[7];
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
    const T* by_rows = plane_of<T>("query_scale", query_scale, count, b, keep[1]);
    const T* by_columns = plane_of<T>("label_scale", label_scale, count, m, keep[2]);
    const Guard<T> limits{
        plane_of<T>("guard", guard, count, b, keep[3]),
        plane_of<T>("row_slack", row_slack, count, b, keep[5]),
        plane_of<T>("column_slack", column_slack, count, m, keep[6])};
    const T* scales = vector_of<T>("row_scale", row_scale, b, keep[4]);
    T* grad_q = target_of<T>("grad_queries", grad_queries, b, q.size(1));
    T* grad_k = target_of<T>("grad_labels", grad_labels, m, q.size(1));

    std::vector<RowOutputs<T>> outputs;
    std::vector<std::unique_ptr<ActivePairs>> active;
    for (int64_t n = 0; n < count; ++n) {
      outputs.emplace_back(options, b, scales != nullptr && want_scalars);
      active.push_back(std::make_unique<ActivePairs>(b, active_capacity));
    }
    const auto real = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
    const int64_t planes = scales == nullptr ? 0 : count;
    const Tensor query_dots = at::zeros({planes, b}, real), label_dots = at::zeros({planes, m}, real);
    const Rows<T> q_rows(q), k_rows(k);
    const PrefixTiles<T> tiles{q_rows, k_rows, widths, by_rows, by_columns};
    const PrefixWalk<T> walk{tiles, positive, excluded, limits, options, outputs, active};
    if (scales == nullptr) {
      walk.run();
    } else if (b > 0 && m > 0) {
      SlopeOptions<T> slopes;
      slopes.kind = sigmoid ? Kind::kSigmoid : static_cast<Kind>(softmax);
      slopes.slope = options.slope;
      slopes.offset = options.offset;
      slopes.scale = options.scale;
      slopes.bias = options.bias;
      slopes.want_sums = want_scalars;
      const std::vector<double> weights = factors.vec();
      PrefixChunk<T> chunk(
          tiles, weights, grad_q, grad_k, query_dots.mutable_data_ptr<T>(),
          label_dots.mutable_data_ptr<T>());
      walk.run_with_gradient(slopes, scales, chunk);
    }
    // Of every width: the results of `walk` up to the sums, then its four lists or none.
    Tensors made{query_dots, label_dots};
    for (int64_t n = 0; n < count; ++n) {
      int64_t total = 0;
      for (int64_t i = 0; i < b; ++i) {
        if (options.has_positive_margin) total += outputs[n].positive_margin_count[i];
        if (options.has_negative_margin) total += outputs[n].negative_margin_count[i];
      }
      for (const Tensor& part : outputs[n].all) made.push_back(part);
      const Tensors lists = active[n]->tensors(total);
      for (size_t part = 0; part < 4; ++part)
        made.push_back(lists.empty() ? at::empty({0}, at::kLong) : lists[part]);
    }
    return made;
  });
}

}  // namespace alc
