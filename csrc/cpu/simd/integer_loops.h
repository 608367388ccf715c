// The loops behind `IntegerKernels` that compilers vectorise, once per instruction set under a
// different ALC_SIMD. As in loops.h, nothing may be called that is not forced inline.

namespace alc {
namespace ALC_SIMD {
namespace {

void thresholds(RowBounds rows, int64_t n, float norm, float residual, float* threshold) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float tau = rows.tau[i], reach = rows.reach[i] * norm + rows.rounded[i] * residual;
    const float size = tau < 0 ? -tau : tau;
    // What this rounds is far less than what is taken off.
    threshold[i] = (tau - reach - 0x1p-20f * (size + reach)) * rows.inverse_scale[i];
  }
}

int32_t round_row(const float* x, int64_t n, float scale, int8_t* out, double* squares) {
  const float inverse = 1.0f / scale;
  double residual = 0, row = 0, integers = 0;
  int32_t sum = 0;
#pragma omp simd reduction(+ : residual, row, integers, sum)
  for (int64_t k = 0; k < n; ++k) {
    float integer = (x[k] * inverse + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23: rounds
    integer = integer > 127.0f ? 127.0f : integer < -127.0f ? -127.0f : integer;
    const double value = x[k], near = integer, rest = value - static_cast<double>(scale) * near;
    residual += rest * rest;
    row += value * value;
    integers += near * near;
    sum += static_cast<int32_t>(integer);
    out[k] = static_cast<int8_t>(static_cast<int32_t>(integer));
  }
  squares[0] = residual;
  squares[1] = row;
  squares[2] = integers;
  return sum;
}

void score(const float* x, const float* const* y, int64_t n, int64_t run, float* out) {
  for (int64_t c = 0; c < 8; ++c) out[c] = 0;
  const float *y0 = y[0], *y1 = y[1], *y2 = y[2], *y3 = y[3];
  const float *y4 = y[4], *y5 = y[5], *y6 = y[6], *y7 = y[7];
  for (int64_t start = 0; start < n; start += run) {
    const int64_t stop = start + run < n ? start + run : n;
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
    for (int64_t k = start; k < stop; ++k) {
      const float q = x[k];
      s0 = __builtin_fmaf(q, y0[k], s0);
      s1 = __builtin_fmaf(q, y1[k], s1);
      s2 = __builtin_fmaf(q, y2[k], s2);
      s3 = __builtin_fmaf(q, y3[k], s3);
      s4 = __builtin_fmaf(q, y4[k], s4);
      s5 = __builtin_fmaf(q, y5[k], s5);
      s6 = __builtin_fmaf(q, y6[k], s6);
      s7 = __builtin_fmaf(q, y7[k], s7);
    }
    const float part[8] = {s0, s1, s2, s3, s4, s5, s6, s7};
    for (int64_t c = 0; c < 8; ++c) out[c] = start == 0 ? part[c] : out[c] + part[c];
  }
}

void near(const float* x, const float* const* y, int64_t n, float* out) {
  const float *y0 = y[0], *y1 = y[1], *y2 = y[2], *y3 = y[3];
  const float *y4 = y[4], *y5 = y[5], *y6 = y[6], *y7 = y[7];
  float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3, s4, s5, s6, s7)
  for (int64_t k = 0; k < n; ++k) {
    s0 += x[k] * y0[k];
    s1 += x[k] * y1[k];
    s2 += x[k] * y2[k];
    s3 += x[k] * y3[k];
    s4 += x[k] * y4[k];
    s5 += x[k] * y5[k];
    s6 += x[k] * y6[k];
    s7 += x[k] * y7[k];
  }
  const float part[8] = {s0, s1, s2, s3, s4, s5, s6, s7};
  for (int64_t c = 0; c < 8; ++c) out[c] = part[c];
}

}  // namespace
}  // namespace ALC_SIMD
}  // namespace alc
