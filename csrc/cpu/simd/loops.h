// The loops behind `Kernels`, included once per instruction set under a different ALC_SIMD.
//
// Nothing here may call a function from another header that is not forced inline: the linker could
// keep the copy compiled for the wider instruction set and use it everywhere.

namespace alc {
namespace ALC_SIMD {
namespace {

#define ALC_INLINE inline __attribute__((always_inline))

template <typename T>
constexpr T kInfinity = static_cast<T>(__builtin_inf());

// exp without branches, so that loops over it vectorise: 2^n e^r with |r| <= ln(2)/2. Below the
// smallest normal number it is 0. Error under 1 unit in the last place.
ALC_INLINE float exponential(float x) {
  const float shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: rounds to n
  const float n = shifted - 12582912.0f;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = __builtin_bit_cast(int32_t, shifted);
  const float power = __builtin_bit_cast(float, (bits + 127) << 23);
  const float value = p * power;
  const float high = x > 88.3f ? kInfinity<float> : value;
  return x < -87.3f ? 0.0f : high;
}
ALC_INLINE double exponential(double x) { return __builtin_exp(x); }

// log(1 + y) for y in [0, 1]: twice the inverse hyperbolic tangent of y / (2 + y).
ALC_INLINE float log1p_unit(float y) {
  const float u = y / (2.0f + y), v = u * u;
  float p = 1.0f / 15.0f;
  p = p * v + 1.0f / 13.0f;
  p = p * v + 1.0f / 11.0f;
  p = p * v + 1.0f / 9.0f;
  p = p * v + 1.0f / 7.0f;
  p = p * v + 1.0f / 5.0f;
  p = p * v + 1.0f / 3.0f;
  return 2.0f * (u + u * v * p);
}
ALC_INLINE double log1p_unit(double y) { return __builtin_log1p(y); }

template <typename T>
ALC_INLINE T magnitude(T x) {
  return x < 0 ? -x : x;
}
template <typename T>
ALC_INLINE T sign_of(T x) {
  return x > 0 ? T(1) : (x < 0 ? T(-1) : T(0));
}

// Sums run in T over this many elements and in double from there on.
constexpr int64_t kRun = 1024;

template <typename T>
int64_t guard(T* s, int64_t n, T limit, T slack, const T* columns) {
  int64_t removed = 0;
  if (columns != nullptr) {
#pragma omp simd reduction(+ : removed)
    for (int64_t j = 0; j < n; ++j) {
      const bool out = s[j] > limit - slack * columns[j];
      s[j] = out ? -kInfinity<T> : s[j];
      removed += out;
    }
    return removed;
  }
#pragma omp simd reduction(+ : removed)
  for (int64_t j = 0; j < n; ++j) {
    const bool out = s[j] > limit;
    s[j] = out ? -kInfinity<T> : s[j];
    removed += out;
  }
  return removed;
}

template <typename T>
T largest(const T* s, int64_t n) {
  T top = -kInfinity<T>;
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < n; ++j) top = s[j] > top ? s[j] : top;
  return top;
}

template <typename T>
int64_t next_above(const T* s, int64_t n, int64_t from, T threshold) {
  int64_t j = from;
  for (; j + 32 <= n; j += 32) {
    int any = 0;
#pragma omp simd reduction(| : any)
    for (int64_t i = 0; i < 32; ++i) any |= s[j + i] > threshold;
    if (any) return j;
  }
  return j;  // the rest is looked at one by one
}

template <typename T>
int64_t over(const T* s, int64_t n, T margin, double* sum) {
  int64_t count = 0;
  for (int64_t start = 0; start < n; start += kRun) {
    const int64_t stop = start + kRun < n ? start + kRun : n;
    T part = 0;
    int64_t here = 0;
#pragma omp simd reduction(+ : part, here)
    for (int64_t j = start; j < stop; ++j) {
      const bool active = s[j] >= margin;
      part += active ? s[j] - margin : T(0);
      here += active;
    }
    *sum += part;
    count += here;
  }
  return count;
}

template <typename T>
T largest_logit(const T* s, int64_t n, T slope, const T* offset) {
  T top = -kInfinity<T>;
  if (offset == nullptr) {
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < n; ++j) {
      const T z = s[j] > -kInfinity<T> ? s[j] * slope : -kInfinity<T>;
      top = z > top ? z : top;
    }
  } else {
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < n; ++j) {
      const T z = s[j] > -kInfinity<T> ? s[j] * slope + offset[j] : -kInfinity<T>;
      top = z > top ? z : top;
    }
  }
  return top;
}

template <typename T>
double sum_exp(const T* s, int64_t n, T slope, const T* offset, T bound) {
  double sum = 0;
  for (int64_t start = 0; start < n; start += kRun) {
    const int64_t stop = start + kRun < n ? start + kRun : n;
    T part = 0;
    if (offset == nullptr) {
#pragma omp simd reduction(+ : part)
      for (int64_t j = start; j < stop; ++j) {
        const T e = exponential(s[j] * slope - bound);
        part += s[j] > -kInfinity<T> ? e : T(0);
      }
    } else {
#pragma omp simd reduction(+ : part)
      for (int64_t j = start; j < stop; ++j) {
        const T e = exponential(s[j] * slope + offset[j] - bound);
        part += s[j] > -kInfinity<T> ? e : T(0);
      }
    }
    sum += part;
  }
  return sum;
}

template <typename T>
void column_largest(const T* s, int64_t n, T slope, T* top) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const T z = s[j] > -kInfinity<T> ? s[j] * slope : -kInfinity<T>;
    top[j] = z > top[j] ? z : top[j];
  }
}

template <typename T>
void column_sum_exp(const T* s, int64_t n, T slope, const T* top, T* sum) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const T e = exponential(s[j] * slope - top[j]);
    sum[j] += s[j] > -kInfinity<T> ? e : T(0);
  }
}

template <typename T>
double sum_softplus(const T* s, int64_t n, T scale, T bias) {
  double sum = 0;
  for (int64_t start = 0; start < n; start += kRun) {
    const int64_t stop = start + kRun < n ? start + kRun : n;
    T part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t j = start; j < stop; ++j) {
      const T x = s[j] * scale + bias;
      const T value = (x > 0 ? x : T(0)) + log1p_unit(exponential(-magnitude(x)));
      part += s[j] > -kInfinity<T> ? value : T(0);
    }
    sum += part;
  }
  return sum;
}

template <typename T, bool kOffset, bool kSums>
ALC_INLINE void softmax_slope_as(
    T* s, int64_t n, T slope, const T* offset, T lse, T c, GradientSums* sums) {
  for (int64_t start = 0; start < n; start += kRun) {
    const int64_t stop = start + kRun < n ? start + kRun : n;
    T weighted = 0, plain = 0;
#pragma omp simd reduction(+ : weighted, plain)
    for (int64_t j = start; j < stop; ++j) {
      const T z = kOffset ? s[j] * slope + offset[j] : s[j] * slope;
      const T e = c * exponential(z - lse);
      const bool counts = s[j] > -kInfinity<T>;
      const T g = counts ? e : T(0);
      if (kSums) {
        weighted += counts ? g * s[j] : T(0);
        plain += g;
      }
      s[j] = g;
    }
    if (kSums) {
      sums->weighted += weighted;
      sums->plain += plain;
    }
  }
}

template <typename T>
void softmax_slope(T* s, int64_t n, T slope, const T* offset, T lse, T c, GradientSums* sums) {
  if (offset != nullptr && sums != nullptr)
    softmax_slope_as<T, true, true>(s, n, slope, offset, lse, c, sums);
  else if (offset != nullptr)
    softmax_slope_as<T, true, false>(s, n, slope, offset, lse, c, sums);
  else if (sums != nullptr)
    softmax_slope_as<T, false, true>(s, n, slope, offset, lse, c, sums);
  else
    softmax_slope_as<T, false, false>(s, n, slope, offset, lse, c, sums);
}

template <typename T>
void column_slope(
    const T* s, T* out, int64_t n, T slope, const T* lse, const T* c, GradientSums* sums) {
  for (int64_t start = 0; start < n; start += kRun) {
    const int64_t stop = start + kRun < n ? start + kRun : n;
    T weighted = 0, plain = 0;
#pragma omp simd reduction(+ : weighted, plain)
    for (int64_t j = start; j < stop; ++j) {
      const bool counts = s[j] > -kInfinity<T>;
      const T e = c[j] * exponential(s[j] * slope - lse[j]);
      const T g = counts ? e : T(0);
      weighted += counts ? g * s[j] : T(0);
      plain += g;
      out[j] = g;
    }
    if (sums != nullptr) {
      sums->weighted += weighted;
      sums->plain += plain;
    }
  }
}

template <typename T>
void sigmoid_slope(T* s, int64_t n, T scale, T bias, T c, GradientSums* sums) {
  GradientSums all;
  for (int64_t start = 0; start < n; start += kRun) {
    const int64_t stop = start + kRun < n ? start + kRun : n;
    T weighted = 0, plain = 0;
#pragma omp simd reduction(+ : weighted, plain)
    for (int64_t j = start; j < stop; ++j) {
      const T x = s[j] * scale + bias;
      const T e = exponential(-magnitude(x));
      const T value = c * ((x > 0 ? T(1) : e) / (T(1) + e));
      const bool counts = s[j] > -kInfinity<T>;
      const T g = counts ? value : T(0);
      weighted += counts ? g * s[j] : T(0);
      plain += g;
      s[j] = g;
    }
    all.weighted += weighted;
    all.plain += plain;
  }
  if (sums != nullptr) {
    sums->weighted += all.weighted;
    sums->plain += all.plain;
  }
}

template <typename T>
void margin_slope(const T* s, T* out, int64_t n, T margin, T value) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) out[j] = s[j] >= margin ? value : T(0);
}

template <typename T>
void add_scaled(T* y, const T* x, T c, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) y[j] += c * x[j];
}

// Sums over four quarters at once: one sum would wait for itself in every step.
template <typename T>
T dot(const T* a, const T* b, int64_t n) {
  const int64_t q = n / 4, q2 = 2 * q, q3 = 3 * q;
  T s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
  for (int64_t j = 0; j < q; ++j) {
    s0 += a[j] * b[j];
    s1 += a[q + j] * b[q + j];
    s2 += a[q2 + j] * b[q2 + j];
    s3 += a[q3 + j] * b[q3 + j];
  }
  for (int64_t j = 4 * q; j < n; ++j) s0 += a[j] * b[j];
  return (s0 + s1) + (s2 + s3);
}

template <typename T>
T pair_logit(const T* a, const T* b, const T* w, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j)
    sum += w[j] * a[j] + w[n + j] * b[j] + w[2 * n + j] * magnitude(a[j] - b[j]) +
        w[3 * n + j] * (a[j] * b[j]);
  return sum;
}

template <typename T>
void pair_query(T* y, const T* a, const T* b, const T* w, T g, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j)
    y[j] += g * (w[j] + sign_of(a[j] - b[j]) * w[2 * n + j] + w[3 * n + j] * b[j]);
}

template <typename T>
void pair_label(T* y, const T* a, const T* b, const T* w, T g, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j)
    y[j] += g * (w[n + j] - sign_of(a[j] - b[j]) * w[2 * n + j] + w[3 * n + j] * a[j]);
}

template <typename T>
void pair_weight(T* sums, const T* a, const T* b, T g, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    sums[j] += g * a[j];
    sums[n + j] += g * b[j];
    sums[2 * n + j] += g * magnitude(a[j] - b[j]);
    sums[3 * n + j] += g * (a[j] * b[j]);
  }
}

template <typename T>
T largest_magnitude(const T* x, int64_t n, bool* finite) {
  const int64_t half = n / 2;
  T top = 0, top2 = 0;
  int bad = 0;
#pragma omp simd reduction(max : top, top2) reduction(| : bad)
  for (int64_t j = 0; j < half; ++j) {
    const T m = magnitude(x[j]), m2 = magnitude(x[half + j]);
    top = m > top ? m : top;
    top2 = m2 > top2 ? m2 : top2;
    bad |= !(m < kInfinity<T>) | !(m2 < kInfinity<T>);
  }
  for (int64_t j = 2 * half; j < n; ++j) {
    const T m = magnitude(x[j]);
    top = m > top ? m : top;
    bad |= !(m < kInfinity<T>);
  }
  if (bad) *finite = false;
  return top > top2 ? top : top2;
}

template <typename T>
void scale(T* y, const T* x, T c, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) y[j] = c * x[j];
}

template <typename T>
void reject(T* y, const T* g, const T* x, T along, T c, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) y[j] = c * (g[j] - x[j] * along);
}

template <typename T>
void scale_each(T* y, const T* x, const T* f, T c, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) y[j] = c * f[j] * x[j];
}

template <typename T>
double weigh_slopes(T* g, const T* x, const T* f, T c, T e, T* sum, int64_t n) {
  double total = 0;
  for (int64_t from = 0; from < n; from += 256) {
    const int64_t stop = from + 256 < n ? from + 256 : n;
    T part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t j = from; j < stop; ++j) {
      sum[j] += c * g[j] * x[j];
      const T h = f[j] * g[j];
      part += h * x[j];
      g[j] = e * h;
    }
    total += part;
  }
  return total;
}

}  // namespace

template <typename T>
constexpr Kernels<T> table(const char* name) {
  return {name,
          guard<T>,
          largest<T>,
          next_above<T>,
          over<T>,
          largest_logit<T>,
          sum_exp<T>,
          sum_softplus<T>,
          column_largest<T>,
          column_sum_exp<T>,
          softmax_slope<T>,
          column_slope<T>,
          sigmoid_slope<T>,
          margin_slope<T>,
          add_scaled<T>,
          dot<T>,
          pair_logit<T>,
          pair_query<T>,
          pair_label<T>,
          pair_weight<T>,
          largest_magnitude<T>,
          scale<T>,
          reject<T>,
          scale_each<T>,
          weigh_slopes<T>};
}

}  // namespace ALC_SIMD
}  // namespace alc
