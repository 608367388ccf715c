#include "screening.h"

#include <cmath>

#include "../passes.h"

namespace alc {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// In place of infinity where numbers are subtracted.
constexpr float kNever = 0x1p120f;
constexpr int64_t kMostCoordinates = 65536;  // of a row: sums stay below 2^31
constexpr int64_t kSingle = 16;  // a pair scored by itself takes as long as so many of a tile
constexpr int64_t kLooked = 1024;  // columns that may be looked at whatever they cost
constexpr int64_t kUnsettled = 256;  // columns after which most rows have found their bound
constexpr int64_t kFirstRefined = 1024;  // columns, and then every eight times as many

// Takes the columns of an ascending span that lie in [start, start + kPanel) out of `bits`.
void take_out(Span& span, int64_t start, uint64_t& bits) {
  span.begin = std::lower_bound(span.begin, span.end, start);
  for (; span.begin != span.end && *span.begin < start + kPanel; ++span.begin)
    bits &= ~(uint64_t{1} << (*span.begin - start));
}

}  // namespace

bool Screening::wanted(
    const Tiles<float>& tiles, const ScanOptions<float>& options, const ScreenRequest& request) {
  const int64_t m = tiles.labels.count(), d = tiles.labels.width();
  const bool possible = tiles.plain() && options.softmax == Softmax::kNone && !options.sigmoid &&
                        (options.top_k > 0 || options.has_negative_margin) && d > 0 &&
                        d <= kMostCoordinates &&
                        m <= std::numeric_limits<int32_t>::max();
  if (!possible || request.always != 0) return possible;
  // What single scores and rounding the labels cost must be little beside the products: measured
  // with AVX-512 VNNI, and with AVX2, whose products save half as much. Plain C++ saves nothing.
  const IntegerKernels& set = integer_kernels();
  const int64_t factor = set.bytes ? 1 : 2;
  return set.rows > 1 && (tiles.queries.count() >= 128 || request.packed != nullptr) &&
         d >= 32 * factor && m >= factor * (512 + 64 * options.top_k);
}

Screening::Screening(
    const Tiles<float>& tiles, const Relations& relations, const ScanOptions<float>& options,
    ScreenRequest& request)
    : tiles_(tiles), relations_(relations), options_(options), request_(request),
      labels_(static_cast<char*>(request.packed), tiles.labels.count(), tiles.labels.width()),
      run_(product_run(tiles.labels.width())),
      margin_(options.has_negative_margin ? std::nextafter(options.negative_margin, -kInfinity)
                                          : kNever) {
  if (request.packed == nullptr) {
    memory_.emplace(labels_.bytes());
    labels_ = PackedLabels(memory_->get(), tiles.labels.count(), tiles.labels.width());
    bounded_ = labels_.pack(tiles.labels);
  }
  const float* slack = tiles.limits.columns;
  if (tiles.limits.limit != nullptr && tiles.limits.slack != nullptr && slack != nullptr)
    for (int64_t j = 0; j < tiles.labels.count(); ++j)
      largest_slack_ = std::max(largest_slack_, std::abs(slack[j]));
}

Screening::~Screening() {
  request_.screened = screened_;
  request_.given_up = given_up_;
  request_.scored = scored_;
  request_.run = run_;
}

// Rounds the block's queries; false where they cannot be bounded.
bool Screening::begin(const float* q, int64_t row, int64_t r, ScreenScratch& s) const {
  const IntegerKernels& set = integer_kernels();
  const int64_t d = tiles_.labels.width(), bytes = labels_.groups() * 4;
  const int64_t n = round_up(r, set.rows);
  if (static_cast<int64_t>(s.scale.size()) < n) {
    s.queries.emplace(n * bytes);
    s.products.emplace(n * kPanel * 4);
    s.integers.resize(d);
    s.rows.resize(n);
    for (auto* numbers : {&s.scale, &s.inverse_scale, &s.reach, &s.rounded, &s.norm, &s.tau,
                          &s.threshold})
      numbers->resize(n);
    s.start.resize(n);
    s.above.resize(n);
  }
  std::fill_n(s.queries->get(), n * bytes, char{0});
  for (int64_t i = 0; i < n; ++i) {
    RowNumbers own;
    if (i < r) {
      if (!round_row(q + i * d, d, s.integers.data(), &own)) return false;
      char* const to = s.queries->get() + i * bytes;
      if (set.bytes)
        std::copy_n(s.integers.data(), d, reinterpret_cast<int8_t*>(to));
      else
        std::copy_n(s.integers.data(), d, reinterpret_cast<int16_t*>(to));
    }
    s.scale[i] = own.scale;
    s.inverse_scale[i] = own.scale > 0 ? 1 / own.scale : 1;
    s.reach[i] = static_cast<float>(own.reach * request_.bound_scale);
    s.rounded[i] = static_cast<float>(own.rounded * request_.bound_scale);
    s.norm[i] = own.norm;
    s.start[i] = set.bytes ? -128 * own.sum : 0;
    ScreenedRow& screened = s.rows[i];
    screened.lower.reset(k());
    screened.candidates.clear();
    screened.positives = i < r ? relations_.positives.row(row + i) : Span{nullptr, nullptr};
    screened.excluded = i < r ? relations_.exclude.row(row + i) : Span{nullptr, nullptr};
    screened.guarded = 0;
    s.tau[i] = i < r ? tau(screened, tiles_.limit(0, row + i)) : kNever;
  }
  return true;
}

// What a bound must exceed for a closer look.
float Screening::tau(const ScreenedRow& row, const RowGuard<float>& guard) const {
  float least = this->least(row);
  if (guard.limit < kInfinity) {  // what may be above the guard has to be counted
    const float reach = std::abs(guard.slack) * largest_slack_;
    least = std::min(least, guard.limit - reach - 0x1p-20f * (std::abs(guard.limit) + reach));
  }
  return std::max(-kNever, std::min(kNever, least));
}

// Looks closer at row i of the block in panel p, at `products` (kPanel).
void Screening::look(
    int64_t i, int64_t row, int64_t p, const float* products, ScreenScratch& s) const {
  ScreenedRow& own = s.rows[i];
  const int64_t start = p * kPanel, left = tiles_.labels.count() - start;
  uint64_t bits = s.above[i];
  if (left < kPanel) bits &= (uint64_t{1} << left) - 1;
  take_out(own.positives, start, bits);
  take_out(own.excluded, start, bits);
  const RowGuard<float> guard = tiles_.limit(0, row + i);
  const bool guarded = guard.limit < kInfinity;
  s.looked += std::popcount(bits);
  const auto before = static_cast<int64_t>(own.candidates.size());
  float least = this->least(own);
  for (; bits != 0; bits &= bits - 1) {
    const int bit = std::countr_zero(bits);
    const int64_t j = start + bit;
    const float score = s.scale[i] * products[bit];
    const float bound = s.reach[i] * labels_.norm()[j] + s.rounded[i] * labels_.residual()[j];
    const float upper = score + bound, lower = score - bound;
    bool certain = true;  // that it is not above the guard
    if (guarded) {
      const float limit = guard.columns == nullptr
                              ? guard.limit
                              : guard.limit - guard.slack * guard.columns[j];
      if (lower > limit) {
        ++own.guarded;
        continue;
      }
      certain = !(upper > limit);
    }
    if (certain && !(upper > least)) continue;
    own.candidates.push_back({static_cast<int32_t>(j), upper});
    if (certain && own.lower.raise(j, lower)) least = this->least(own);
  }
  s.tau[i] = tau(own, guard);
  s.kept += static_cast<int64_t>(own.candidates.size()) - before;
}

// Replaces the row's k lower bounds by scores of the same columns; whether there are k.
bool Screening::refine(const float* x, int64_t i, ScreenScratch& s) const {
  ScreenedRow& own = s.rows[i];
  if (k() == 0 || static_cast<int64_t>(own.lower.found().size()) < k()) return false;
  s.columns.clear();
  for (const Pair<float>& one : own.lower.found()) s.columns.push_back(one.column);
  s.scores.near(x, s.columns, s.exact);
  own.lower.reset(k());
  for (size_t n = 0; n < s.columns.size(); ++n)
    own.lower.raise(s.columns[n], s.exact[n] - spread(s.norm[i], s.columns[n]));
  s.tau[i] = std::max(s.tau[i], std::min(kNever, least(own)));
  return true;
}

// Drops candidates that have become too small.
void Screening::drop(int64_t r, ScreenScratch& s) const {
  s.kept = 0;
  for (int64_t i = 0; i < r; ++i) {
    ScreenedRow& own = s.rows[i];
    const float least = s.tau[i];
    std::erase_if(own.candidates, [&](const Candidate& one) { return one.upper < least; });
    s.kept += static_cast<int64_t>(own.candidates.size());
  }
}

int64_t Screening::block(
    const float* q, int64_t row, int64_t r, RowScan<float>* scans, ActiveLists* active, bool keep,
    ScreenScratch& s) const {
  if (!begin(q, row, r, s)) return 0;
  const int64_t n = round_up(r, integer_kernels().rows), m = tiles_.labels.count();
  const IntegerKernels& set = integer_kernels();
  float* const products = reinterpret_cast<float*>(s.products->get());
  const RowBounds bounds{s.tau.data(), s.reach.data(), s.rounded.data(), s.inverse_scale.data()};
  const int64_t d = tiles_.labels.width();
  const bool refined = tiles_.limits.limit == nullptr;  // a guard leaves candidates uncertain
  const auto refine_all = [&] {
    if (refined)
      for (int64_t i = 0; i < r; ++i) refine(q + i * d, i, s);
    drop(r, s);
  };
  int64_t until = 0, dropped_at = 0, refine_at = kFirstRefined;
  s.kept = s.looked = 0;
  for (int64_t p = 0; until < m; ++p) {
    set.thresholds(
        bounds, n, labels_.largest_norm(p), labels_.largest_residual(p), s.threshold.data());
    set.panel(
        s.queries->get(), n, labels_.panel(p), labels_.groups(), s.start.data(),
        labels_.scale() + p * kPanel, s.threshold.data(), products, s.above.data());
    for (int64_t i = 0; i < r; ++i)
      if (s.above[i] != 0) look(i, row, p, products + i * kPanel, s);
    until = std::min(m, until + kPanel);
    if (until == refine_at) {
      refine_all();
      refine_at *= 8;
    }
    // More to look at than full precision would cost: the rest of the columns is left to that.
    if (s.looked > r * (kLooked + until / 4)) break;
    const int64_t most = r * (2 * k() + 32 + until / 64 + (until <= kUnsettled ? 96 : 0));
    if (s.kept <= most || s.kept <= dropped_at) continue;
    refine_all();
    dropped_at = s.kept + s.kept / 4;
    if (s.kept > most) break;
  }
  screened_ += r;
  if (until < m) given_up_ += r;
  if (until < m && s.kept > r * until / kSingle) return 0;  // cheaper once more in tiles
  int64_t scored = 0;
  for (int64_t i = 0; i < r; ++i)
    scored += settle(q + i * d, i, row + i, until, scans[i], keep ? active + i : nullptr, s);
  scored_ += scored;
  return until;
}

// A row's exact results of the columns before `until`; how many pairs were scored.
int64_t Screening::settle(
    const float* x, int64_t i, int64_t at, int64_t until, RowScan<float>& scan,
    ActiveLists* active, ScreenScratch& s) const {
  ScreenedRow& row = s.rows[i];
  s.columns.clear();
  const Span positives = relations_.positives.row(at);
  for (const int64_t* j = positives.begin; j != positives.end && *j < until; ++j)
    s.columns.push_back(*j);
  auto scored = static_cast<int64_t>(s.columns.size());
  s.scores.exact(x, s.columns, s.exact);
  for (size_t n = 0; n < s.columns.size(); ++n)
    scan.found_positive(options_, s.columns[n], s.exact[n], active);
  scored += tiles_.limit(0, at).limit < kInfinity ? collect(s.rows[i], s) : narrow(x, i, s);
  s.scores.exact(x, s.columns, s.exact);
  for (size_t n = 0; n < s.columns.size(); ++n)
    scan.found_negative(options_, s.columns[n], s.exact[n], active);
  scan.found_until(until, row.guarded);
  return scored;
}

// The candidates' columns: all of them, as each may be above a guard.
int64_t Screening::collect(const ScreenedRow& row, ScreenScratch& s) const {
  s.columns.clear();
  for (const Candidate& one : row.candidates) s.columns.push_back(one.column);
  return static_cast<int64_t>(s.columns.size());
}

// The candidates' columns but for those that scores summed in any order rule out; how many were
// scored so: from the largest upper bound down, while the others may still belong to the result.
int64_t Screening::narrow(const float* x, int64_t i, ScreenScratch& s) const {
  ScreenedRow& row = s.rows[i];
  std::vector<Candidate>& all = row.candidates;
  std::erase_if(all, [least = least(row)](const Candidate& one) { return one.upper < least; });
  if (k() > 0)
    std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
      return a.upper > b.upper;
    });
  row.lower.reset(k());
  size_t seen = 0;
  while (seen < all.size() && all[seen].upper >= least(row)) {
    const size_t stop = std::min(all.size(), seen + 8);
    s.columns.clear();
    for (size_t n = seen; n < stop; ++n) s.columns.push_back(all[n].column);
    s.scores.near(x, s.columns, s.exact);
    for (; seen < stop; ++seen) {
      const float score = s.exact[seen % 8], reach = spread(s.norm[i], all[seen].column);
      row.lower.raise(all[seen].column, score - reach);
      all[seen].upper = score + reach;
    }
  }
  s.columns.clear();
  for (size_t n = 0; n < seen; ++n)
    if (all[n].upper >= least(row)) s.columns.push_back(all[n].column);
  std::sort(s.columns.begin(), s.columns.end());
  return static_cast<int64_t>(seen);
}

template <typename T>
int64_t packed_bytes(const Problem<T>& problem) {
  if (std::is_same_v<T, double> || problem.dim == 0 || problem.dim > kMostCoordinates) return 0;
  return PackedLayout(problem.columns, problem.dim).bytes();
}

template <typename T>
bool pack_labels(const Problem<T>& problem, void* memory) {
  if constexpr (std::is_same_v<T, double>) {
    return false;
  } else {
    const Rows<T> labels(problem.labels, problem.dtype, problem.columns, problem.dim);
    return PackedLabels(static_cast<char*>(memory), problem.columns, problem.dim).pack(labels);
  }
}

template int64_t packed_bytes(const Problem<float>&);
template int64_t packed_bytes(const Problem<double>&);
template bool pack_labels(const Problem<float>&, void*);
template bool pack_labels(const Problem<double>&, void*);

}  // namespace alc
