// Vectors of float32, their transposition and reduction, 2^x, register-blocked products, and
// memory of a thread: what the sources beside this one are written in.
//
// Weights of a product come in panels of COLUMNS outputs, (outputs / COLUMNS, inputs, COLUMNS).

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include <omp.h>

#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 14;
#else
constexpr int LANES = 8, ROWS = 6;
#endif
constexpr int COLUMNS = 2 * LANES;

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Integers __attribute__((vector_size(LANES * sizeof(float))));

static inline Vector load(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

static inline void store(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }

// lanes of a (below LANES) and of b (from LANES on)
template <int... From>
static inline Vector lanes(Vector a, Vector b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, From...);
#else
  return __builtin_shuffle(a, b, Integers{From...});
#endif
}

// lanes i and i ^ Distance change places
template <int Distance, size_t... I>
static inline Vector exchanged(Vector v, std::index_sequence<I...>) {
  return lanes<int(I ^ Distance)...>(v, v);
}

template <int Distance>
static inline Vector exchanged(Vector v) {
  return exchanged<Distance>(v, std::make_index_sequence<LANES>());
}

template <class Join>
static inline float across(Vector v, Join join) {
  v = join(v, exchanged<1>(v));
  v = join(v, exchanged<2>(v));
  v = join(v, exchanged<4>(v));
  if constexpr (LANES == 16) v = join(v, exchanged<LANES / 2>(v));
  return v[0];
}

static inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

static inline float sum(Vector v) {
  return across(v, [](Vector a, Vector b) { return a + b; });
}

static inline float most(Vector v) { return across(v, larger); }

// of a pair of vectors, a's lanes without the bit Distance and b's in the places that have it; and
// the other halves: one step of a transposition
template <int Distance, size_t... I>
static inline void swap_halves(Vector& a, Vector& b, std::index_sequence<I...>) {
  const Vector low = lanes<int(I & Distance ? (I ^ Distance) + LANES : I)...>(a, b);
  b = lanes<int(I & Distance ? I + LANES : I ^ Distance)...>(a, b);
  a = low;
}

template <int Distance>
static inline void swap_halves(Vector (&v)[LANES]) {
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i)
    if (!(i & Distance))
      swap_halves<Distance>(v[i], v[i | Distance], std::make_index_sequence<LANES>());
}

static inline void transpose(Vector (&v)[LANES]) {
  swap_halves<1>(v);
  swap_halves<2>(v);
  swap_halves<4>(v);
  if constexpr (LANES == 16) swap_halves<LANES / 2>(v);
}

// 2^x for x <= 0, to 1e-7 of itself; 0 below 2^-100, so that no denormal numbers arise.
static inline Vector power_of_two(Vector x) {
  const Vector floor = x < -100.f ? (Vector{} - 100.f) : x;
  const Vector shifted = floor + 12582912.f;  // 1.5 * 2^23: its last bits hold the integer
  const Vector f = floor - (shifted - 12582912.f);
  Vector p = 0.0013276440726318341f * f + 0.009675541084532422f;
  p = p * f + 0.055507133702123f;
  p = p * f + 0.24022119730061944f;
  p = p * f + 0.6931469670055495f;
  p = p * f + 1.0000000716527646f;
  const Integers scaled = (Integers)p + ((Integers)shifted << 23);
  return x < -100.f ? Vector{} : (Vector)scaled;
}

// ---- products ------------------------------------------------------------------------------

// c (rows, columns) = [c +] a (rows, inner) * panel (inner, COLUMNS) [+ bias]; meanwhile the panel
// that is needed next is brought nearer
template <int R>
static void block_of_sums(int inner, const float* a, long lda, const float* panel,
                          const float* next, const float* bias, bool add, float* c, long ldc,
                          int columns) {
  Vector sums[R][2] = {};
  const float* row[(R + 2) / 3];  // of every third row: two more lie within reach of an address
  for (int i = 0; i < (R + 2) / 3; ++i) row[i] = a + 3 * i * lda;
#pragma GCC unroll 4
  for (int k = 0; k < inner; ++k) {
    const long at = (long)k * COLUMNS;
    __builtin_prefetch(next + at, 0, 2);
    __builtin_prefetch(next + at + LANES, 0, 2);
    const Vector left = load(panel + at);
    const Vector right = load(panel + at + LANES);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const float factor = row[i / 3][k + (i % 3) * lda];
      sums[i][0] += factor * left;
      sums[i][1] += factor * right;
    }
  }
  const Vector none = {};
  const Vector bias_left = bias ? load(bias) : none;
  const Vector bias_right = bias ? load(bias + LANES) : none;
  if (columns == COLUMNS) {
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      float* out = c + i * ldc;
      store(out, sums[i][0] + bias_left + (add ? load(out) : none));
      store(out + LANES, sums[i][1] + bias_right + (add ? load(out + LANES) : none));
    }
    return;
  }
  for (int i = 0; i < R; ++i) {
    float whole[COLUMNS];
    store(whole, sums[i][0] + bias_left);
    store(whole + LANES, sums[i][1] + bias_right);
    for (int j = 0; j < columns; ++j) c[i * ldc + j] = whole[j] + (add ? c[i * ldc + j] : 0.f);
  }
}

using BlockOfSums = void (*)(int, const float*, long, const float*, const float*, const float*, bool,
                             float*, long, int);

template <int... R>
struct Heights {
  static constexpr BlockOfSums of[] = {block_of_sums<R>...};
};

#ifdef __AVX512F__
using Sums = Heights<1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14>;
#else
using Sums = Heights<1, 2, 3, 4, 5, 6>;
#endif

// c (rows, outputs) = [c +] a (rows, inner) * panels [+ bias]; bias is as long as the panels, which
// begin every panel_stride floats
static void product(long rows, int inner, int outputs, const float* a, long lda,
                    const float* panels, long panel_stride, const float* bias, bool add, float* c,
                    long ldc) {
  for (int j = 0; j < outputs; j += COLUMNS, panels += panel_stride) {
    const int columns = std::min(COLUMNS, outputs - j);
    for (long i = 0; i < rows; i += ROWS) {
      const int height = std::min<long>(ROWS, rows - i);
      Sums::of[height - 1](inner, a + i * lda, lda, panels, panels + panel_stride,
                           bias ? bias + j : nullptr, add, c + i * ldc + j, ldc, columns);
    }
  }
}

// ---- memory -----------------------------------------------------------------------------------

// Kept from call to call, one a thread of the caller: new pages cost more than the work in them.
struct Scratch {
  float* data = nullptr;
  size_t floats = 0;

  float* of(size_t wanted) {
    if (wanted > floats) {
      std::free(data);
      floats = 0;
      data = static_cast<float*>(std::aligned_alloc(64, (wanted * sizeof(float) + 63) / 64 * 64));
      if (!data) throw std::bad_alloc();
      floats = wanted;
    }
    return data;
  }
  ~Scratch() { std::free(data); }
};

static thread_local Scratch scratch;

static size_t round_up(size_t floats) { return (floats + 15) / 16 * 16; }

// 1 where there is no memory for what is run, else 0
template <class Run>
static int or_no_memory(Run run) {
  try {
    run();
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}
