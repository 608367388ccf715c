#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include "column_scan.h"
#include "gradient_chunk.h"
#include "passes.h"
#include "relation.h"
#include "screening/screening.h"
#include "slopes.h"

namespace alc {
namespace {

constexpr int64_t kTileElements = 128 * 1024;

// Collects one width's active pairs while there are few enough of them.
class ActivePairs {
 public:
  ActivePairs(int64_t rows, int64_t capacity) : capacity_(capacity) {
    if (capacity_ > 0) lists_.resize(rows);
  }
  bool wanted() const { return capacity_ > 0 && count_.load(std::memory_order_relaxed) <= capacity_; }
  void keep(int64_t row, const ActiveLists& found) {
    const int64_t n = static_cast<int64_t>(found.positives.size() + found.negatives.size());
    if (n == 0 || !wanted()) return;
    count_ += n;
    lists_[row] = found;
  }
  // `total` is their number as the walk's counts have it.
  void write(int64_t total, int64_t* crow, int64_t* count, int32_t* col) const {
    const int32_t* const begin = col;
    for (const bool negatives : {false, true}) {
      *count = total > capacity_ ? -1 : 0;
      if (*count++ < 0) continue;
      const int32_t* const first = col;
      *crow++ = 0;
      for (const ActiveLists& row : lists_) {
        const std::vector<int32_t>& own = negatives ? row.negatives : row.positives;
        col = std::copy(own.begin(), own.end(), col);
        *crow++ = col - first;
      }
      count[-1] = col - first;
    }
    expect(col - begin <= capacity_, "active pairs: more than counted");
  }

 private:
  int64_t capacity_;
  std::atomic<int64_t> count_{0};
  std::vector<ActiveLists> lists_;
};

template <typename T>
struct WalkScratch {
  std::vector<T> queries, labels, raw, row;
  std::vector<RowScan<T>> scans;  // (W, rows of a block)
  std::vector<ActiveLists> active;
  std::vector<Pair<T>> positives;
  std::vector<std::pair<T*, T>> taken;  // out of similarities that are kept
  typename ColumnScan<T>::Scratch columns;
  std::optional<ScreenScratch> screening;
};

template <typename T>
class Walk {
 public:
  Walk(const Problem<T>& problem, const WalkRequest<T>& request)
      : tiles_(problem), relations_(problem), options_(request), to_(request) {
    for (int64_t n = 0; n < tiles_.count(); ++n)
      active_.push_back(std::make_unique<ActivePairs>(rows(), request.active_capacity));
    if constexpr (std::is_same_v<T, float>) {
      const bool alone = to_.columns_softmax == 0 && to_.row_scale == nullptr &&
                         to_.similarities == nullptr && to_.screening != nullptr;
      if (alone && Screening::wanted(tiles_, options_, *to_.screening))
        screening_.emplace(tiles_, relations_, options_, *to_.screening);
      if (screening_ && !screening_->on()) screening_.reset();
    }
  }

  void run() {
    if (to_.columns_softmax != 0)
      with_columns();
    else if (to_.row_scale != nullptr)
      with_gradient();
    else
      by_tiles(nullptr);
    for (int64_t n = 0; n < tiles_.count(); ++n) finish(n);
  }

 private:
  int64_t rows() const { return tiles_.queries.count(); }
  int64_t columns() const { return tiles_.labels.count(); }

  void begin(RowScan<T>& scan, int64_t n, int64_t i) const {
    scan.begin(
        options_, relations_.positives.row(i), relations_.exclude.row(i), columns(),
        tiles_.limit(n, i));
  }

  // Tiles that stay in the cache; every row's state stays with its block.
  int64_t tile_height() const {
    const auto root = static_cast<int64_t>(4.0 * std::sqrt(static_cast<double>(rows())));
    return std::clamp<int64_t>(round_up(root, 16), 16, 256);
  }

  void by_tiles(ColumnScan<T>* statistics) {
    const int64_t height = tile_height(), blocks = blocks_of(rows(), height);
    const int64_t most = std::max<int64_t>(columns(), 1);
    const int64_t width = std::min(round_up(kTileElements / height, 64), most);
    const auto make_scratch = [&] {
      WalkScratch<T> scratch;
      scratch.raw.resize(height * width);
      scratch.row.resize(tiles_.plain() ? 0 : width);
      scratch.scans.resize(tiles_.count() * height);
      scratch.active.resize(tiles_.count() * height);
      if (screening_) scratch.screening.emplace(screening_->make_scratch());
      return scratch;
    };
    const int64_t groups = statistics == nullptr ? blocks : statistics->groups();
    const int64_t size = groups == 0 ? 0 : blocks_of(blocks, groups);
    for_each_block(groups, make_scratch, [&](int64_t group, WalkScratch<T>& scratch) {
      for (int64_t number = group * size; number < std::min(blocks, (group + 1) * size); ++number)
        block(number * height, std::min(height, rows() - number * height), height, width, statistics,
              group, scratch);
    });
  }

  // Rows [row, row + r), in tiles of `width` columns; state of width n, row i at n * height + i.
  void block(
      int64_t row, int64_t r, int64_t height, int64_t width, ColumnScan<T>* statistics,
      int64_t group, WalkScratch<T>& scratch) {
    const T* q = tiles_.queries.block(row, r, scratch.queries);
    for (int64_t n = 0; n < tiles_.count(); ++n)
      for (int64_t i = 0; i < r; ++i) {
        begin(scratch.scans[n * height + i], n, row + i);
        scratch.active[n * height + i] = {};
      }
    const bool kept = to_.similarities != nullptr;
    const int64_t stride = kept ? columns() : width;
    int64_t done = 0;
    if constexpr (std::is_same_v<T, float>) {
      if (screening_)
        done = screening_->block(
            q, row, r, scratch.scans.data(), scratch.active.data(), active_[0]->wanted(),
            *scratch.screening);
    }
    for (int64_t col = done; col < columns(); col += width) {
      const int64_t c = std::min(width, columns() - col);
      T* raw = kept ? to_.similarities + row * stride + col : scratch.raw.data();
      const T* k = tiles_.labels.block(col, c, scratch.labels);
      for (int64_t n = 0; n < tiles_.count(); ++n) {
        tiles_.grow(q, r, k, c, n, raw, stride);
        const bool keep = active_[n]->wanted();
        scratch.taken.clear();
        for (int64_t i = 0; i < r; ++i) {
          T* s = raw + i * stride;
          if (!tiles_.plain()) {
            tiles_.scale(s, n, row + i, col, c, scratch.row.data());
            s = scratch.row.data();
          }
          scratch.positives.clear();
          scratch.scans[n * height + i].tile(
              options_, s, col, c, keep ? &scratch.active[n * height + i] : nullptr,
              statistics == nullptr ? nullptr : &scratch.positives);
          for (const Pair<T>& pair : scratch.positives) {
            statistics->positive(group, pair);
            if (kept) scratch.taken.push_back({s + pair.column - col, pair.score});
          }
        }
        if (statistics != nullptr) statistics->tile(group, raw, stride, r, col, c, scratch.columns);
        for (const auto& [place, score] : scratch.taken) *place = score;
      }
    }
    for (int64_t n = 0; n < tiles_.count(); ++n)
      for (int64_t i = 0; i < r; ++i) {
        write(scratch.scans[n * height + i], n * rows() + row + i);
        active_[n]->keep(row + i, scratch.active[n * height + i]);
      }
  }

  // The same with whole rows in a chunk, followed by their gradient.
  void with_gradient() {
    const Kind kind =
        options_.sigmoid ? Kind::kSigmoid : static_cast<Kind>(static_cast<int64_t>(options_.softmax));
    SlopeOptions<T> slopes(options_, kind, to_.targets.weighted_sum != nullptr);
    slopes.has_positive_margin = slopes.has_negative_margin = false;  // not the margins' gradient
    GradientChunk<T> chunk(tiles_, to_.targets, columns());
    chunk.run([&](int64_t n, int64_t i, T* s, int64_t col, int64_t c, ChunkScratch<T>& scratch) {
      scratch.positives.clear();
      ActiveLists found;
      const bool keep = active_[n]->wanted();
      begin(scratch.scan, n, i);
      scratch.scan.tile(options_, s, col, c, keep ? &found : nullptr, &scratch.positives);
      write(scratch.scan, n * rows() + i);
      active_[n]->keep(i, found);
      RowSlope<T> own{to_.row_scale[i], 0, scratch.scan.num_positives};
      own.complete = true;
      if (options_.softmax != Softmax::kNone) own.log_sum_exp = scratch.scan.log_sum_exp();
      if (slopes.kind == Kind::kDecoupled)
        own.negative_scale = decoupled_scale(slopes, own, scratch.positives);
      GradientSums sums;
      write_slopes<T>(slopes, own, nullptr, s, col, c, scratch.positives, nullptr, sums);
      if (slopes.want_sums) {
        to_.targets.weighted_sum[n * rows() + i] = static_cast<T>(sums.weighted);
        to_.targets.plain_sum[n * rows() + i] = static_cast<T>(sums.plain);
      }
    });
  }

  // The walk, and the columns' statistics: counts of positives and negatives, log-sum-exp, sum of
  // the positives' logits.
  void with_columns() {
    ColumnScan<T> statistics(
        static_cast<Softmax>(to_.columns_softmax) == Softmax::kNegatives, options_.slope, columns(),
        blocks_of(rows(), tile_height()));
    by_tiles(&statistics);
    std::fill_n(to_.column_positives, columns(), 0);
    std::fill_n(to_.column_negatives, columns(), rows());
    for (int64_t i = 0; i < rows(); ++i) {
      const Span own = relations_.positives.row(i);
      for (const int64_t* j = own.begin; j != own.end; ++j) ++to_.column_positives[*j];
      visit_union(own, relations_.exclude.row(i), [&](int64_t j) { --to_.column_negatives[j]; });
    }
    statistics.write(to_.column_log_sum_exp, to_.column_logit_sum);
  }

  // A row's results, to the row `at` of all widths'.
  void write(const RowScan<T>& scan, int64_t at) const {
    to_.num_positives[at] = scan.num_positives;
    to_.num_negatives[at] = scan.num_negatives;
    int64_t place = at * options_.top_k;
    for (const Pair<T>& found : scan.top.found()) {
      to_.top_score[place] = found.score;
      to_.top_index[place++] = found.column;
    }
    for (; place < (at + 1) * options_.top_k; ++place) {
      to_.top_score[place] = -std::numeric_limits<T>::infinity();
      to_.top_index[place] = -1;
    }
    if (to_.positive_score != nullptr) {
      to_.positive_score[at] = scan.positive_score;
      to_.positive_index[at] = scan.positive_index;
    }
    if (options_.softmax != Softmax::kNone) {
      to_.log_sum_exp[at] = scan.log_sum_exp();
      to_.positive_logit_sum[at] = static_cast<T>(scan.positive_logit_sum);
    }
    if (options_.sigmoid) to_.sigmoid_sum[at] = static_cast<T>(scan.sigmoid_sum);
    if (options_.has_positive_margin) {
      to_.positive_margin_sum[at] = static_cast<T>(scan.positive_margin_sum);
      to_.positive_margin_count[at] = scan.positive_margin_count;
    }
    if (options_.has_negative_margin) {
      to_.negative_margin_sum[at] = static_cast<T>(scan.negative_margin_sum);
      to_.negative_margin_count[at] = scan.negative_margin_count;
    }
  }

  // The margins' sums and counts over all rows, and the active pairs, of width n.
  void finish(int64_t n) const {
    if (!options_.has_positive_margin && !options_.has_negative_margin) return;
    int64_t active = 0;
    const auto add = [&](int64_t side, const T* sum, const int64_t* count, bool wanted) {
      double total = 0;
      int64_t pairs = 0;
      for (int64_t at = n * rows(); wanted && at < (n + 1) * rows(); ++at) {
        total += sum[at];
        pairs += count[at];
      }
      to_.margin_sums[2 * n + side] = static_cast<T>(total);
      to_.margin_counts[2 * n + side] = pairs;
      active += pairs;
    };
    add(0, to_.positive_margin_sum, to_.positive_margin_count, options_.has_positive_margin);
    add(1, to_.negative_margin_sum, to_.negative_margin_count, options_.has_negative_margin);
    if (options_.keep_active)
      active_[n]->write(
          active, to_.active_crow + n * 2 * (rows() + 1), to_.active_count + 2 * n,
          to_.active_col + n * to_.active_capacity);
  }

  const Tiles<T> tiles_;
  const Relations relations_;
  const ScanOptions<T> options_;
  const WalkRequest<T>& to_;
  std::vector<std::unique_ptr<ActivePairs>> active_;
  std::optional<Screening> screening_;
};

}  // namespace

template <typename T>
void walk(const Problem<T>& problem, const WalkRequest<T>& request) {
  expect(request.top_k >= 0, "top_k: expected >= 0");
  expect(
      request.columns_softmax == 0 ||
          (request.softmax != 0 && problem.widths == nullptr && problem.guard == nullptr &&
           request.row_scale == nullptr),
      "columns: only beside a softmax at one width, without guard and row_scale");
  expect(
      request.row_scale == nullptr || (request.softmax != 0) != (request.sigmoid_sum != nullptr),
      "row_scale: the gradient is that of one softmax or sigmoid loss");
  Walk<T>(problem, request).run();
}

template <typename T>
void count_pairs(const Problem<T>& problem, int64_t* counts) {
  const Relations relations(problem);
  for (int64_t i = 0; i < problem.rows; ++i) {
    const Span own = relations.positives.row(i);
    counts[i] = own.size();
    counts[problem.rows + i] = problem.columns - union_size(own, relations.exclude.row(i));
  }
}

template void walk(const Problem<float>&, const WalkRequest<float>&);
template void walk(const Problem<double>&, const WalkRequest<double>&);
template void count_pairs(const Problem<float>&, int64_t*);
template void count_pairs(const Problem<double>&, int64_t*);

}  // namespace alc
