// The batch part group by group, forward and backward while a group is in the cache.
#include "context.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "rows.h"
#include "simd/context.h"
#include "simd/kernels.h"

namespace alc {
namespace {

constexpr int64_t kTokens = 128;            // queries of the attention looked at together
constexpr int64_t kFew = 24;                // tokens whose gradients by the features are kept
constexpr int64_t kSums = 32 << 20;         // bytes of parameter gradients that blocks may keep
constexpr int64_t kKept = 8 << 20;          // bytes
constexpr int64_t kMostBlocks = 16;         // of groups; each sums its own parameter gradients

// Numbers that a thread keeps for its next call, where they are few: fresh pages cost as much as
// what is computed on them. They are whatever was left there.
template <typename T, int use>
class Kept {
 public:
  T* of(int64_t count) {
    numbers_ = std::move(left_);
    if (static_cast<int64_t>(numbers_.size()) < count) numbers_.resize(count);
    return numbers_.data();
  }
  ~Kept() {
    if (static_cast<int64_t>(numbers_.size() * sizeof(T)) <= kKept) left_ = std::move(numbers_);
  }

 private:
  std::vector<T> numbers_;
  static thread_local std::vector<T> left_;
};
template <typename T, int use>
thread_local std::vector<T> Kept<T, use>::left_;

template <typename T>
T softplus(T x) {
  return std::max(x, T(0)) + std::log1p(std::exp(-std::abs(x)));
}

// Sizes of the parameters, in their order.
std::array<int64_t, kContextParameters> parameter_sizes(const ContextRequest& own) {
  const int64_t d = own.dim, c = own.width, f = own.hidden;
  return {4 * c * d, c, 3 * c * c, 3 * c, c * c, c, f * c, f, c * f, c, c, c, c, c, c, 1};
}

// (rows, cols) somewhere; what is written or on the right of a product has `col` 1.
template <typename T>
struct View {
  T* data;
  int64_t rows, cols, row, col = 1;

  // this <- a b, or where `add` this += a b
  void product(const View<const T>& a, const View<const T>& b, bool add) const {
    context_kernels<T>().product(
        {rows, cols, a.cols, a.data, a.row, a.col, b.data, b.row, data, row, add});
  }
  operator View<const T>() const { return {data, rows, cols, row, col}; }
};
template <typename T>
View<T> whole(T* data, int64_t rows, int64_t cols) {  // one row after the other
  return {data, rows, cols, cols};
}
template <typename T>
View<T> transposed(T* data, int64_t rows, int64_t cols) {  // of (cols, rows)
  return {data, rows, cols, 1, rows};
}

// out (cols, rows) <- the transposed of x (rows, cols), whose rows are ldx apart
template <typename T>
void turn(const T* x, int64_t rows, int64_t cols, int64_t ldx, T* out) {
  for (int64_t from = 0; from < cols; from += 16)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = from; j < std::min(from + 16, cols); ++j) out[j * rows + i] = x[i * ldx + j];
}

// The weights (out, in) as (in, out).
template <typename T>
struct Turned {
  T *in, *mix, *out, *wide, *narrow;
};
template <typename T>
Turned<T> turned_weights(const ContextRequest& own, const ContextParameters<const T*>& p, T* store) {
  const int64_t d = own.dim, c = own.width, f = own.hidden;
  const auto next = [&](const T* weight, int64_t rows, int64_t cols) {
    turn(weight, rows, cols, cols, store);
    return std::exchange(store, store + rows * cols);
  };
  return {next(p.in_weight, c, 4 * d), next(p.mix_weight, 3 * c, c), next(p.out_weight, c, c),
          next(p.wide_weight, f, c), next(p.narrow_weight, c, f)};
}

// A block of groups, and what it needs while it works on one.
template <typename T>
class Groups {
 public:
  Groups(const ContextRequest& own, const ContextParameters<const T*>& p, const Turned<T>& turned)
      : own_(own), p_(p), turned_(turned), d_(own.dim), c_(own.width), f_(own.hidden), h_(own.heads),
        backward_(own.grad_queries || own.grad_pairs || own.grad_parameters) {
    const int64_t t = 2 * own.size, b = std::min(t, kTokens);
    std::vector<std::pair<T**, int64_t>> places;
    int64_t total = 0;
    for (const auto& [part, count] : std::initializer_list<std::pair<T**, int64_t>>{
             {&features_, t * 3 * d_}, {&of_query_, own.size * c_}, {&tokens_, t * c_},
             {&mixed_, t * 3 * c_}, {&across_, t * 2 * c_}, {&log_sums_, h_ * t},
             {&attended_, t * c_}, {&unit1_, t * c_}, {&inverse1_, t}, {&middle_, t * c_}, {&hidden_, t * f_}, {&active_, t * f_},
             {&unit2_, t * c_}, {&inverse2_, t}, {&last_, t * c_}, {&scores_, b * t},
             {&slopes_, backward_ ? b * t : 0}, {&grad_, backward_ ? t * c_ : 0},
             {&grad_add_, backward_ ? t * c_ : 0}, {&grad_mixed_, backward_ ? t * 3 * c_ : 0},
             {&grad_hidden_, backward_ ? t * f_ : 0},
             {&grad_features_, own.grad_queries || own.grad_pairs ? kFew * 3 * d_ : 0},
             {&spare_, std::max(c_, d_)}})
      places.push_back({part, total}), total += count;
    T* store = store_.of(total);
    for (const auto& [part, at] : places) *part = store + at;
  }
  Groups(const Groups&) = delete;

  // The sum of the losses of group `number`; adds the gradients of the parameters to `sums`.
  double group(int64_t number, T* sums) {
    first_ = number * own_.size;
    rows_ = std::min(own_.size, own_.rows - first_);
    t_ = 2 * rows_;
    seed_ = static_cast<uint32_t>(own_.seed) ^ static_cast<uint32_t>(own_.seed >> 32) ^
        static_cast<uint32_t>(number) * 0x9e3779b1u;
    queries_ = static_cast<const T*>(own_.queries) + first_ * d_;
    pairs_ = static_cast<const T*>(own_.pairs) + first_ * 2 * d_;
    members_ = own_.members == nullptr ? nullptr : own_.members + first_;
    if (members_ != nullptr && std::none_of(members_, members_ + rows_, [](auto x) { return x; })) {
      zero_sides();
      return 0;
    }
    forward();
    const double loss = head(sums == nullptr ? Sums{} : offsets(sums));
    if (backward_) backward(offsets(sums));
    return loss;
  }

 private:
  using Sums = ContextParameters<T*>;

  // Where the gradient of each parameter is.
  Sums offsets(T* sums) const {
    Sums made;
    T** at = reinterpret_cast<T**>(&made);
    for (const int64_t size : parameter_sizes(own_)) *at++ = sums, sums += size;
    return made;
  }

  void zero_sides() {
    if (own_.grad_queries) std::fill_n(static_cast<T*>(own_.grad_queries) + first_ * d_, rows_ * d_, T(0));
    if (own_.grad_pairs) std::fill_n(static_cast<T*>(own_.grad_pairs) + first_ * 2 * d_, t_ * d_, T(0));
  }

  // out <- x W' + bias, of t rows
  void linear(const T* x, int64_t in, const T* turned, const T* bias, T* out, int64_t n) const {
    for (int64_t i = 0; i < t_; ++i) std::copy_n(bias, n, out + i * n);
    whole(out, t_, n).product(whole(x, t_, in), whole(turned, in, n), true);
  }
  // Adds the gradients of that layer's weight and bias.
  void linear_sums(const T* grad, int64_t n, const T* x, int64_t in, T* weight, T* bias) const {
    whole(weight, n, in).product(transposed(grad, n, t_), whole(x, t_, in), true);
    for (int64_t i = 0; i < t_; ++i) loops_.add(bias, grad + i * n, n);
  }
  void drop(T* x, int64_t n, uint32_t layer) const {
    if (own_.dropout <= 0) return;
    const uint32_t limit = static_cast<uint32_t>(own_.dropout * 4294967296.0);
    loops_.drop(x, n, seed_ + layer * 0x632be5abu, 0, limit, T(1 / (1 - own_.dropout)));
  }

  void forward() {
    for (int64_t i = 0; i < t_; ++i)
      loops_.features(queries_ + (i / 2) * d_, pairs_ + i * d_, features_ + i * 3 * d_, d_);
    for (int64_t i = 0; i < rows_; ++i) std::copy_n(p_.in_bias, c_, of_query_ + i * c_);
    whole(of_query_, rows_, c_)
        .product(whole(queries_, rows_, d_), whole(turned_.in, d_, c_), true);
    for (int64_t i = 0; i < t_; ++i) std::copy_n(of_query_ + (i / 2) * c_, c_, tokens_ + i * c_);
    whole(tokens_, t_, c_)
        .product(whole(features_, t_, 3 * d_), whole(turned_.in + d_ * c_, 3 * d_, c_), true);

    linear(tokens_, c_, turned_.mix, p_.mix_bias, mixed_, 3 * c_);
    turn(mixed_ + c_, t_, 2 * c_, 3 * c_, across_);
    const int64_t e = c_ / h_;
    for (int64_t head = 0; head < h_; ++head)
      for (int64_t from = 0; from < t_; from += kTokens) {
        const int64_t b = std::min(kTokens, t_ - from);
        scores(head, from, b);
        for (int64_t i = 0; i < b; ++i) {
          T* row = scores_ + i * t_;
          const T top = vector_.largest_logit(row, t_, slope(), nullptr);
          const double sum = vector_.sum_exp(row, t_, slope(), nullptr, top);
          T& log_sum = log_sums_[head * t_ + from + i];
          log_sum = top + static_cast<T>(std::log(sum));
          vector_.softmax_slope(row, t_, slope(), nullptr, log_sum, T(1), nullptr);
        }
        View<T>{attended_ + from * c_ + head * e, b, e, c_}.product(
            whole(scores_, b, t_), part(mixed_, 2, head, 0, t_), false);
      }
    linear(attended_, c_, turned_.out, p_.out_bias, middle_, c_);
    drop(middle_, t_ * c_, 1);
    normalize(tokens_, p_.norm1_weight, p_.norm1_bias, own_.epsilon1, unit1_, inverse1_, middle_);
    linear(middle_, c_, turned_.wide, p_.wide_bias, hidden_, f_);
    loops_.gelu(hidden_, active_, t_ * f_);
    drop(active_, t_ * f_, 2);
    linear(active_, f_, turned_.narrow, p_.narrow_bias, last_, c_);
    drop(last_, t_ * c_, 3);
    normalize(middle_, p_.norm2_weight, p_.norm2_bias, own_.epsilon2, unit2_, inverse2_, last_);
  }

  // out <- the unit rows of x + out, weighed
  void normalize(
      const T* x, const T* weight, const T* bias, double epsilon, T* unit, T* inverse, T* out) const {
    loops_.add(out, x, t_ * c_);
    for (int64_t i = 0; i < t_; ++i)
      inverse[i] = loops_.layer_norm(
          out + i * c_, weight, bias, T(epsilon), unit + i * c_, out + i * c_, c_);
  }

  T slope() const { return T(1) / std::sqrt(static_cast<T>(c_ / h_)); }
  // Of queries (0), keys (1) or values (2): tokens from .. from + count of a head.
  View<T> part(T* mixed, int64_t which, int64_t head, int64_t from, int64_t count) const {
    const int64_t e = c_ / h_;
    return {mixed + from * 3 * c_ + which * c_ + head * e, count, e, 3 * c_};
  }
  // Of keys (0) or values (1): all tokens of a head, one of its coordinates after the other.
  View<T> across(int64_t which, int64_t head) const {
    const int64_t e = c_ / h_;
    return {across_ + (which * c_ + head * e) * t_, e, t_, t_};
  }
  // scores_ <- products of b queries with all keys; -inf for keys that are not seen
  void scores(int64_t head, int64_t from, int64_t b) {
    whole(scores_, b, t_).product(part(mixed_, 0, head, from, b), across(0, head), false);
    if (members_ == nullptr) return;
    for (int64_t j = 0; j < t_; ++j)
      if (!members_[j / 2])
        for (int64_t i = 0; i < b; ++i) scores_[i * t_ + j] = -std::numeric_limits<T>::infinity();
  }

  // The losses; grad_ <- their gradient by the layer's output.
  double head(const Sums& sums) {
    double total = 0;
    for (int64_t i = 0; i < t_; ++i) {
      const T* token = last_ + i * c_;
      const bool counts = members_ == nullptr || members_[i / 2], negative = i % 2;
      const T logit = vector_.dot(token, p_.head_weight, c_) + *p_.head_bias;
      if (counts) total += softplus(negative ? logit : -logit);
      if (!backward_) continue;
      const T slope = counts ? T(1) / (T(1) + std::exp(-logit)) - T(negative ? 0 : 1) : T(0);
      vector_.scale(grad_ + i * c_, p_.head_weight, slope, c_);
      vector_.add_scaled(sums.head_weight, token, slope, c_);
      *sums.head_bias += slope;
    }
    return total;
  }

  // grad_ <- the gradient by what was normalised
  void normalize_backward(const T* unit, const T* inverse, const T* weight, T* sum, T* sum_bias) {
    for (int64_t i = 0; i < t_; ++i)
      loops_.layer_norm_backward(
          grad_ + i * c_, unit + i * c_, inverse[i], weight, sum, sum_bias, c_);
  }

  void backward(const Sums& sums) {
    normalize_backward(unit2_, inverse2_, p_.norm2_weight, sums.norm2_weight, sums.norm2_bias);
    std::copy_n(grad_, t_ * c_, grad_add_);
    drop(grad_add_, t_ * c_, 3);
    linear_sums(grad_add_, c_, active_, f_, sums.narrow_weight, sums.narrow_bias);
    whole(grad_hidden_, t_, f_).product(whole(grad_add_, t_, c_), whole(p_.narrow_weight, c_, f_), false);
    drop(grad_hidden_, t_ * f_, 2);
    loops_.gelu_backward(hidden_, grad_hidden_, t_ * f_);
    linear_sums(grad_hidden_, f_, middle_, c_, sums.wide_weight, sums.wide_bias);
    whole(grad_, t_, c_).product(whole(grad_hidden_, t_, f_), whole(p_.wide_weight, f_, c_), true);

    normalize_backward(unit1_, inverse1_, p_.norm1_weight, sums.norm1_weight, sums.norm1_bias);
    std::copy_n(grad_, t_ * c_, grad_add_);
    drop(grad_add_, t_ * c_, 1);
    linear_sums(grad_add_, c_, attended_, c_, sums.out_weight, sums.out_bias);
    // last_ is not needed any more: the gradient by what was attended to.
    whole(last_, t_, c_).product(whole(grad_add_, t_, c_), whole(p_.out_weight, c_, c_), false);
    for (int64_t head = 0; head < h_; ++head) attention_backward(head);
    linear_sums(grad_mixed_, 3 * c_, tokens_, c_, sums.mix_weight, sums.mix_bias);
    whole(grad_, t_, c_).product(whole(grad_mixed_, t_, 3 * c_), whole(p_.mix_weight, 3 * c_, c_), true);
    features_backward(sums);
  }

  // The weights are made again from their logarithmic sums; last_ has the gradient.
  void attention_backward(int64_t head) {
    const int64_t e = c_ / h_;
    for (int64_t from = 0; from < t_; from += kTokens) {
      const int64_t b = std::min(kTokens, t_ - from);
      scores(head, from, b);
      for (int64_t i = 0; i < b; ++i)
        vector_.softmax_slope(
            scores_ + i * t_, t_, slope(), nullptr, log_sums_[head * t_ + from + i], T(1), nullptr);
      T* grad = last_ + from * c_ + head * e;
      const View<T> above{grad, b, e, c_}, weights = transposed(scores_, t_, b);
      part(grad_mixed_, 2, head, 0, t_).product(weights, above, from > 0);
      whole(slopes_, b, t_).product(above, across(1, head), false);
      for (int64_t i = 0; i < b; ++i) {
        const T along = vector_.dot(grad + i * c_, attended_ + (from + i) * c_ + head * e, e);
        loops_.softmax_backward(slopes_ + i * t_, scores_ + i * t_, along, slope(), t_);
      }
      part(grad_mixed_, 0, head, from, b)
          .product(whole(slopes_, b, t_), part(mixed_, 1, head, 0, t_), false);
      part(grad_mixed_, 1, head, 0, t_)
          .product(transposed(slopes_, t_, b), part(mixed_, 0, head, from, b), from > 0);
    }
  }

  void features_backward(const Sums& sums) {
    T* grad_query = grad_add_;  // (rows, c)
    for (int64_t i = 0; i < rows_; ++i) {
      std::copy_n(grad_ + 2 * i * c_, c_, grad_query + i * c_);
      loops_.add(grad_query + i * c_, grad_ + (2 * i + 1) * c_, c_);
      loops_.add(sums.in_bias, grad_query + i * c_, c_);
    }
    View<T>{sums.in_weight, c_, d_, 4 * d_}.product(
        transposed(grad_query, c_, rows_), whole(queries_, rows_, d_), true);
    View<T>{sums.in_weight + d_, c_, 3 * d_, 4 * d_}.product(
        transposed(grad_, c_, t_), whole(features_, t_, 3 * d_), true);
    T* grad_queries = static_cast<T*>(own_.grad_queries);
    T* grad_pairs = static_cast<T*>(own_.grad_pairs);
    if (grad_queries == nullptr && grad_pairs == nullptr) return;
    std::vector<T> unwanted(grad_queries == nullptr ? rows_ * d_ : 0);
    T* to = grad_queries == nullptr ? unwanted.data() : grad_queries + first_ * d_;
    whole(to, rows_, d_).product(
        whole<const T>(grad_query, rows_, c_), View<const T>{p_.in_weight, c_, d_, 4 * d_}, false);
    const View<const T> weight{p_.in_weight + d_, c_, 3 * d_, 4 * d_};
    for (int64_t from = 0; from < t_; from += kFew) {
      const int64_t few = std::min(kFew, t_ - from);
      whole(grad_features_, few, 3 * d_).product(whole(grad_ + from * c_, few, c_), weight, false);
      for (int64_t i = from; i < from + few; ++i)
        loops_.features_backward(
            grad_features_ + (i - from) * 3 * d_, queries_ + (i / 2) * d_, pairs_ + i * d_,
            to + (i / 2) * d_, grad_pairs == nullptr ? spare_ : grad_pairs + (first_ * 2 + i) * d_, d_);
    }
  }

  const ContextRequest& own_;
  const int64_t d_, c_, f_, h_;
  const bool backward_;
  const ContextKernels<T>& loops_ = context_kernels<T>();
  const Kernels<T>& vector_ = kernels<T>();
  const ContextParameters<const T*>& p_;
  const Turned<T>& turned_;
  Kept<T, 0> store_;
  // Of a group's t tokens; kept for the backward but for scores, slopes and what begins with grad.
  T *features_, *of_query_, *tokens_, *mixed_, *across_, *log_sums_, *attended_, *unit1_, *inverse1_,
      *middle_, *hidden_, *active_, *unit2_, *inverse2_, *last_, *scores_, *slopes_, *grad_, *grad_add_,
      *grad_mixed_, *grad_hidden_, *grad_features_, *spare_;
  // The group at hand.
  int64_t first_ = 0, rows_ = 0, t_ = 0;
  uint32_t seed_ = 0;
  const T *queries_ = nullptr, *pairs_ = nullptr;
  const uint8_t* members_ = nullptr;
};

template <typename T>
void run(const ContextRequest& own) {
  const auto sizes = parameter_sizes(own);
  int64_t all = 0;
  for (const int64_t size : sizes) all += size;
  const int64_t groups = blocks_of(own.rows, own.size);
  const bool backward = own.grad_queries || own.grad_pairs || own.grad_parameters;
  // How many does not depend on the threads, and so no sum does.
  const int64_t most = std::clamp<int64_t>(kSums / (all * sizeof(T)), 1, kMostBlocks);
  const int64_t blocks = std::min(groups, most), each = blocks_of(groups, std::max<int64_t>(blocks, 1));
  std::vector<double> losses(blocks);
  Kept<T, 1> kept;
  T* sums = backward ? kept.of(blocks * all) : nullptr;
  if (backward) std::fill_n(sums, blocks * all, T(0));
  ContextParameters<const T*> parameters;
  std::memcpy(&parameters, own.parameters, sizeof(parameters));
  Kept<T, 2> weights;
  const Turned<T> turned = turned_weights(own, parameters, weights.of(all));
  for_each_block(
      blocks, [&] { return Groups<T>(own, parameters, turned); },
      [&](int64_t block, Groups<T>& work) {
        for (int64_t g = block * each; g < std::min(groups, (block + 1) * each); ++g)
          losses[block] += work.group(g, backward ? sums + block * all : nullptr);
      });
  double total = 0;
  for (const double loss : losses) total += loss;
  *static_cast<T*>(own.loss) = static_cast<T>(total);
  if (own.grad_parameters == nullptr) return;
  T* made = static_cast<T*>(own.grad_parameters);
  std::copy_n(sums, all, made);
  for (int64_t block = 1; block < blocks; ++block)
    context_kernels<T>().add(made, sums + block * all, all);
}

}  // namespace

void context_loss(const ContextRequest& request) {
  by_accumulation_type(request.dtype, [&](auto zero) { run<decltype(zero)>(request); });
}

}  // namespace alc
