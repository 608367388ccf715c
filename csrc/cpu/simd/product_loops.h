// Products of the small matrices of one group, included after loops.h and under its rules. A tile
// of kTileRows rows and a few vectors of columns stays in registers while the steps go by.
// ALC_VECTOR: bytes of a vector register.

namespace alc {
namespace ALC_SIMD {
namespace {

constexpr int kTileRows = 6;
constexpr int kTileVectors = ALC_VECTOR == 64 ? 4 : 2;  // with 32 registers, else 16
constexpr int64_t kSteps = 256;                         // of the inner dimension at a time

template <typename T>
struct Vector {
  static constexpr int64_t size = ALC_VECTOR / sizeof(T);
  typedef T type __attribute__((vector_size(ALC_VECTOR)));
  // The same anywhere in memory.
  typedef T loose __attribute__((vector_size(ALC_VECTOR), aligned(sizeof(T)), may_alias));
};

// out (rows, columns * size) <- or += the product of `steps` steps.
template <typename T, int rows, int columns>
ALC_INLINE void tile(const Product<T>& own, const T* a, const T* b, int64_t ldb, T* out,
                     int64_t ldo, int64_t steps, bool add) {
  using V = typename Vector<T>::type;
  using Loose = typename Vector<T>::loose;
  constexpr int64_t size = Vector<T>::size;
  V sums[rows][columns];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int c = 0; c < columns; ++c) sums[i][c] = V{};
  for (int64_t p = 0; p < steps; ++p) {
    V right[columns];
#pragma GCC unroll 8
    for (int c = 0; c < columns; ++c)
      right[c] = *reinterpret_cast<const Loose*>(b + p * ldb + c * size);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const T left = a[i * own.a_row + p * own.a_step];
#pragma GCC unroll 8
      for (int c = 0; c < columns; ++c) sums[i][c] += left * right[c];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int c = 0; c < columns; ++c) {
      Loose* to = reinterpret_cast<Loose*>(out + i * ldo + c * size);
      *to = add ? *to + sums[i][c] : sums[i][c];
    }
}

// All rows of a few vectors of columns.
template <typename T, int columns>
void panel(const Product<T>& own, const T* a, const T* b, int64_t ldb, T* out, int64_t ldo,
           int64_t steps, bool add) {
  int64_t i = 0;
  for (; i + kTileRows <= own.rows; i += kTileRows)
    tile<T, kTileRows, columns>(own, a + i * own.a_row, b, ldb, out + i * ldo, ldo, steps, add);
  const T* left = a + i * own.a_row;
  T* to = out + i * ldo;
  switch (own.rows - i) {
    case 5: return tile<T, 5, columns>(own, left, b, ldb, to, ldo, steps, add);
    case 4: return tile<T, 4, columns>(own, left, b, ldb, to, ldo, steps, add);
    case 3: return tile<T, 3, columns>(own, left, b, ldb, to, ldo, steps, add);
    case 2: return tile<T, 2, columns>(own, left, b, ldb, to, ldo, steps, add);
    case 1: return tile<T, 1, columns>(own, left, b, ldb, to, ldo, steps, add);
  }
}

// The last columns, fewer than a vector: beside zeros.
template <typename T>
void last_columns(const Product<T>& own, const T* a, const T* b, T* out, int64_t count,
                  int64_t steps, bool add) {
  constexpr int64_t size = Vector<T>::size;
  alignas(ALC_VECTOR) T padded[kSteps * size], made[kTileRows * size];
  for (int64_t p = 0; p < steps; ++p)
    for (int64_t j = 0; j < size; ++j) padded[p * size + j] = j < count ? b[p * own.ldb + j] : T(0);
  for (int64_t i = 0; i < own.rows; i += kTileRows) {
    Product<T> part = own;
    part.rows = own.rows - i < kTileRows ? own.rows - i : kTileRows;
    panel<T, 1>(part, a + i * own.a_row, padded, size, made, size, steps, false);
    for (int64_t r = 0; r < part.rows; ++r)
      for (int64_t j = 0; j < count; ++j) {
        T& to = out[(i + r) * own.ldo + j];
        to = add ? to + made[r * size + j] : made[r * size + j];
      }
  }
}

template <typename T>
void product(const Product<T>& own) {
  constexpr int64_t size = Vector<T>::size, wide = kTileVectors * size;
  if (own.steps == 0 && !own.add)
    for (int64_t i = 0; i < own.rows; ++i)
      for (int64_t j = 0; j < own.cols; ++j) own.out[i * own.ldo + j] = 0;
  for (int64_t from = 0; from < own.steps; from += kSteps) {
    const int64_t steps = own.steps - from < kSteps ? own.steps - from : kSteps;
    const T *a = own.a + from * own.a_step, *b = own.b + from * own.ldb;
    const bool add = own.add || from > 0;
    int64_t j = 0;
    for (; j + wide <= own.cols; j += wide)
      panel<T, kTileVectors>(own, a, b + j, own.ldb, own.out + j, own.ldo, steps, add);
    for (; j + size <= own.cols; j += size)
      panel<T, 1>(own, a, b + j, own.ldb, own.out + j, own.ldo, steps, add);
    if (j < own.cols) last_columns(own, a, b + j, own.out + j, own.cols - j, steps, add);
  }
}

}  // namespace
}  // namespace ALC_SIMD
}  // namespace alc
