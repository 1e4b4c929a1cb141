// Sparsifiner's attention, for float32 inference on a CPU: which keys a patch's query attends to,
// and the attention to them, a few queries of a head at a time on each core.
//
// A query's logits of coefficients are a small product (its reduced channels by the mixed keys); the
// rows of the basis that it weighs most are a handful, and mostly 0, so their sum is made by their
// entries alone, in a row that stays in the first cache. The largest of it are found by halving an
// interval of their bits, which counts and never sorts. Keys and values are read by index, for a few
// dozen queries in one range of tokens after the other, which the second cache holds.
//
// In blocks, 16 queries take the same tiles of 16 keys, and the rest is dense products.
//
// Built by build.py; called through attention.py, whose structure this is.

#include "vectors.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

constexpr int TILE = 16, GROUP = 7 * TILE;  // queries of a tile; queries that are done at a time
constexpr int SLICES = TILE / LANES;        // vectors of a tile of keys
constexpr long RANGE_BYTES = 256 * 1024;    // of keys that queries take in turn
constexpr long LIST_BYTES = 256 * 1024;     // of what the queries know of their keys
constexpr float NOTHING = -1e30f;           // no weight is left to it: 2 ** NOTHING

struct Entry {
  int32_t column;
  float value;
};

struct Problem {
  int64_t images, heads, tokens;  // the class token first
  int64_t width;                  // channels of a head, padded to whole vectors
  int64_t channels;               // of a head that is given out
  float scale;                    // of the logits, with log2(e)
  const float *q, *k, *v;         // (images, heads, tokens, width)
  int64_t reduced, rows;          // channels of a reduced query; rows of the basis
  const float* reduced_q;         // (images, heads, tokens - 1, reduced)
  const float* panels;            // (images, heads, rows / COLUMNS, reduced, COLUMNS), with log2(e)
  int64_t coefficients;           // how many a query uses; 0: those above least_coefficient
  float least_coefficient;
  int64_t keep;                   // keys (tiles, in blocks) of a query; 0: those above least_weight
  float least_weight;
  int64_t positions;              // tokens that the basis is made for
  const int64_t* offsets;         // (rows + 1): the entries of each row of the basis
  const Entry* entries;
  const int64_t* present;         // (images, tokens): which positions there are; null for all
  int64_t tiles;                  // of keys; 0 where not in blocks
  const float* tile_sums;         // ([images,] rows, padded tiles)
  int64_t tile_sums_stride;       // from one image's to the next
  float* slices;                  // (images, heads, tiles * SLICES, width, LANES): keys, made here
  float* out;                     // (images, tokens, heads, channels); of patches alone
};

static long padded(long count) { return (count + LANES - 1) / LANES * LANES; }

// ---- choosing ----------------------------------------------------------------------------------

// Indices of what is above a bound (or at it), ascending, to out, which has LANES more than needed.
template <bool AtIt>
static long where_above(const float* x, long count, float bound, int32_t* out) {
  long found = 0;
#ifdef __AVX512F__
  __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512 least = _mm512_set1_ps(bound);
  for (long i = 0; i < count; i += LANES) {
    __mmask16 is = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + i), least,
                                      AtIt ? _CMP_GE_OQ : _CMP_GT_OQ);
    if (i + LANES > count) is &= (1u << (count - i)) - 1;
    _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(is, index));
    found += __builtin_popcount(is);
    index = _mm512_add_epi32(index, _mm512_set1_epi32(LANES));
  }
#else
  for (long i = 0; i < count; ++i) {
    out[found] = i;
    found += AtIt ? x[i] >= bound : x[i] > bound;
  }
#endif
  return found;
}

// Of numbers from 0 up those above a bound: their bits to values, which are in the same order, and
// their indices; both have LANES more than needed.
static long bits_above(const float* x, long count, float bound, int32_t* values, int32_t* index) {
  long found = 0;
#ifdef __AVX512F__
  __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i least = _mm512_castps_si512(_mm512_set1_ps(bound));
  for (long i = 0; i < count; i += LANES) {
    const __m512i v = _mm512_loadu_si512(x + i);
    __mmask16 is = _mm512_cmpgt_epi32_mask(v, least);
    if (i + LANES > count) is &= (1u << (count - i)) - 1;
    _mm512_storeu_si512(values + found, _mm512_maskz_compress_epi32(is, v));
    _mm512_storeu_si512(index + found, _mm512_maskz_compress_epi32(is, at));
    found += __builtin_popcount(is);
    at = _mm512_add_epi32(at, _mm512_set1_epi32(LANES));
  }
#else
  for (long i = 0; i < count; ++i) {
    std::memcpy(values + found, x + i, sizeof *x);
    index[found] = i;
    found += x[i] > bound;
  }
#endif
  return found;
}

// Those of `which` whose values are above low and not above high, to out, which may be values and
// which itself, and has LANES more than needed.
static long between(const int32_t* values, const int32_t* which, long count, int32_t low,
                    int32_t high, int32_t* out) {
  long found = 0;
#ifdef __AVX512F__
  for (long i = 0; i < count; i += LANES) {
    const __m512i v = _mm512_loadu_si512(values + i);
    __mmask16 is = _mm512_cmpgt_epi32_mask(v, _mm512_set1_epi32(low)) &
                   _mm512_cmple_epi32_mask(v, _mm512_set1_epi32(high));
    if (i + LANES > count) is &= (1u << (count - i)) - 1;
    const __m512i of = _mm512_loadu_si512(which + i);
    _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(is, of));
    found += __builtin_popcount(is);
  }
#else
  for (long i = 0; i < count; ++i) {
    const int32_t one = values[i];
    out[found] = which[i];
    found += one > low && one <= high;
  }
#endif
  return found;
}

static long count_above(const int32_t* x, long count, int32_t bound) {
  Integers total = {};
  const long whole = count / LANES * LANES;
  for (long i = 0; i < whole; i += LANES) {
    Integers v;
    std::memcpy(&v, x + i, sizeof v);
    total -= v > bound;
  }
  long sum = 0;
#ifdef __AVX512F__
  sum = _mm512_reduce_add_epi32((__m512i)total);
#else
  for (int lane = 0; lane < LANES; ++lane) sum += total[lane];
#endif
  for (long i = whole; i < count; ++i) sum += x[i] > bound;
  return sum;
}

// Indices of the `keep` largest of `count` numbers from 0 up, of equal ones the first, ascending, to
// out. work: three times as many integers, and LANES more each time, as out. guess: a number that
// may be below all of them, 0 if in doubt; becomes one for numbers like these.
static long largest(const float* x, long count, long keep, int32_t* work, float& guess,
                    int32_t* out) {
  int32_t *values = work, *index = values + count + LANES, *few = index + count + LANES;
  long all = bits_above(x, count, guess, values, index);
  if (all < keep && guess != 0) all = bits_above(x, count, guess = 0, values, index);
  if (all <= keep) {
    std::memcpy(out, index, all * sizeof *out);
    long found = all;
    for (long i = 0; i < count && found < keep; ++i)
      if (x[i] == 0.f) out[found++] = i;
    std::inplace_merge(out, out + all, out + found);
    while (found < keep) out[found++] = 0;  // there was something that is no number
    return keep;
  }
  int32_t low = values[0], high = values[0];
  for (long i = 1; i < all; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  --low;  // more than `keep` are above low, and `above` above high: less than `keep`
  const auto is_bound = [&guess](int32_t bits) {
    std::memcpy(&guess, &bits, sizeof guess);
    guess *= 0.4f;
  };
  const int32_t* left = values;
  long rest = all, above = 0;
  for (int step = 1; high - low > 1; ++step) {
    const int32_t middle = low + (high - low) / 2;
    const long found = above + count_above(left, rest, middle);
    if (found == keep) {
      is_bound(middle);
      return between(values, index, all, middle, INT32_MAX, out);
    }
    (found > keep ? low : high) = middle;
    if (step % 3 == 0) {
      above += count_above(left, rest, high);
      rest = between(left, left, rest, low, high, few);
      left = few;
    }
  }
  is_bound(high);
  // the last ones are equal, and only the first of them count
  long ties = keep - count_above(values, all, high), found = 0;
  for (long i = 0; i < all; ++i)
    if (values[i] > high || (values[i] == high && ties-- > 0)) out[found++] = index[i];
  return found;
}

// how many lanes are above a number, or at it
template <bool AtIt>
static inline int lanes_above(Vector v, float x) {
#ifdef __AVX512F__
  return __builtin_popcount(
      _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(x), AtIt ? _CMP_GE_OQ : _CMP_GT_OQ));
#else
  int found = 0;
  for (int lane = 0; lane < LANES; ++lane) found += AtIt ? v[lane] >= x : v[lane] > x;
  return found;
#endif
}

// Of `found` indices of x, ascending, the `count` of the largest, of equal ones the first.
static void best_of(const float* x, int32_t* index, long found, long count) {
  float few[4 * LANES];
  if (found > 4 * LANES) {
    std::partial_sort(index, index + count, index + found, [x](int32_t a, int32_t b) {
      return x[a] > x[b] || (x[a] == x[b] && a < b);
    });
    return;
  }
  for (long i = 0; i < found; ++i) few[i] = x[index[i]];
  long kept = 0;
  for (long i = 0; i < found; ++i) {
    long before = 0;
    for (long j = 0; j < i; ++j) before += few[j] >= few[i];
    for (long j = i + 1; j < found; ++j) before += few[j] > few[i];
    index[kept] = index[i];
    kept += before < count;
  }
}

// The coefficients of a query that count, by the logits (rows, padded) of all: their indices and
// weights, which add up to at most 1 where `whole`, and are right among themselves where not.
static long coefficients_of(const Problem& p, const float* logits, bool whole, int32_t* index,
                            float* weight) {
  const long end = padded(p.rows);
  Vector best = Vector{} + NOTHING;
  for (long i = 0; i < end; i += LANES) best = larger(best, load(logits + i));
  const float top = most(best);
  float total = 1.f;
  if (whole || p.coefficients == 0) {
    Vector sums = {};
    for (long i = 0; i < end; i += LANES) sums += power_of_two(load(logits + i) - top);
    total = sum(sums);
  }
  float bound = NOTHING;
  if (p.coefficients && p.coefficients <= LANES) {
    // so many lanes have something from it up, and so at least so many numbers are
    float lane[LANES];
    store(lane, best);
    for (const float one : lane) {
      const bool is = lanes_above<false>(best, one) < p.coefficients &&
                      lanes_above<true>(best, one) >= p.coefficients;
      bound = is ? one : bound;
    }
  }
  long found = where_above<true>(logits, p.rows, bound, index);
  if (p.coefficients && found > p.coefficients) {
    best_of(logits, index, found, p.coefficients);
    found = p.coefficients;
  }
  long kept = 0;
  for (long i = 0; i < found; i += LANES) {
    float few[LANES];
    const long here = std::min<long>(LANES, found - i);
    for (long j = 0; j < LANES; ++j) few[j] = j < here ? logits[index[i + j]] - top : NOTHING;
    store(few, power_of_two(load(few)));
    for (long j = 0; j < here; ++j) {
      const float one = few[j] / total;
      index[kept] = index[i + j];
      weight[kept] = one;
      kept += p.coefficients || one > p.least_coefficient;
    }
  }
  return kept;
}

// ---- attending ---------------------------------------------------------------------------------

// lane i of the result is the sum of v[i]
static inline Vector sums_of(Vector (&v)[LANES]) {
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i += 2) {
    swap_halves<1>(v[i], v[i + 1], std::make_index_sequence<LANES>());
    v[i] += v[i + 1];
  }
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i += 4) {
    swap_halves<2>(v[i], v[i + 2], std::make_index_sequence<LANES>());
    v[i] += v[i + 2];
  }
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i += 8) {
    swap_halves<4>(v[i], v[i + 4], std::make_index_sequence<LANES>());
    v[i] += v[i + 4];
  }
  if constexpr (LANES == 16) {
    swap_halves<8>(v[0], v[8], std::make_index_sequence<LANES>());
    v[0] += v[8];
  }
  return v[0];
}

// Products of a query with the listed keys, LANES of them at a time; V: vectors of a key, or 0
template <int V>
static void logits_of(const float* q, const float* k, long width, const int32_t* key, long count,
                      float* logits) {
  const long vectors = V ? V : width / LANES, stride = vectors * LANES;
  for (long i = 0; i < count; i += LANES) {
    Vector sums[LANES];
#pragma GCC unroll 16
    for (int j = 0; j < LANES; ++j) {
      const float* row = k + key[i + j] * stride;
      Vector total = load(q) * load(row);
      for (long c = 1; c < vectors; ++c) total += load(q + c * LANES) * load(row + c * LANES);
      sums[j] = total;
    }
    store(logits + i, sums_of(sums));
  }
}

// out (V * LANES) += sum of the listed values by their weights; Whole: that is the width
template <int V, bool Whole>
static void values_of(const float* v, long width, const int32_t* key, const float* weight,
                      long count, float* out) {
  const long stride = Whole ? V * LANES : width;
  Vector even[V] = {}, odd[V] = {};
  long i = 0;
  for (; i + 1 < count; i += 2) {
    const float *a = v + key[i] * stride, *b = v + key[i + 1] * stride;
#pragma GCC unroll 4
    for (int c = 0; c < V; ++c) {
      even[c] += weight[i] * load(a + c * LANES);
      odd[c] += weight[i + 1] * load(b + c * LANES);
    }
  }
  if (i < count)
    for (int c = 0; c < V; ++c) even[c] += weight[i] * load(v + key[i] * stride + c * LANES);
  for (int c = 0; c < V; ++c) store(out + c * LANES, load(out + c * LANES) + even[c] + odd[c]);
}

// Logits (padded) become weights that are yet to be divided by their sum, which is returned.
static float exponentials(float* logits, long count) {
  Vector best = Vector{} + NOTHING;
  for (long i = 0; i < count; i += LANES) best = larger(best, load(logits + i));
  const float top = most(best);
  Vector sums = {};
  for (long i = 0; i < count; i += LANES) {
    const Vector weight = power_of_two(load(logits + i) - top);
    store(logits + i, weight);
    sums += weight;
  }
  return sum(sums);
}

// A query, the keys that it takes, and how far it has come with them.
struct Query {
  float *q, *logits, *out;  // logits: as long as the list
  int32_t* keys;            // ascending; LIST_MARGIN more, which are overwritten
  long count, place;
  float total;  // of the weights
};

constexpr long LIST_MARGIN = 2 * LANES;

// Queries to their keys. The keys of all come in ranges, so that they are still in the second cache
// when the next query reads them.
static void attend(const Problem& p, Query* queries, long count, const float* k, const float* v) {
  const long width = p.width, range = std::max<long>(RANGE_BYTES / (width * sizeof(float)), LANES);
  const auto by_ranges = [&](auto run) {
    for (long end = range; end < p.tokens + range; end += range)
      for (long i = 0; i < count; ++i) {
        Query& one = queries[i];
        long stop = one.place;
        // some of the next range, so that lanes are full
        while (stop < one.count && one.keys[stop] < end) stop += LANES;
        stop = std::min(stop, one.count);
        run(one, one.place, stop);
        one.place = stop;
      }
  };
  for (long i = 0; i < count; ++i) {
    Query& one = queries[i];
    const int32_t last = one.count ? one.keys[one.count - 1] : 0;
    for (long j = 0; j < LIST_MARGIN; ++j) one.keys[one.count + j] = last;
    one.place = 0;
  }
  by_ranges([&](Query& one, long from, long to) {
    const int32_t* keys = one.keys + from;
    switch (width / LANES) {
      case 2: return logits_of<2>(one.q, k, width, keys, to - from, one.logits + from);
      case 4: return logits_of<4>(one.q, k, width, keys, to - from, one.logits + from);
      default: return logits_of<0>(one.q, k, width, keys, to - from, one.logits + from);
    }
  });
  for (long i = 0; i < count; ++i) {
    Query& one = queries[i];
    for (long j = one.count; j < padded(one.count); ++j) one.logits[j] = NOTHING;
    // all of the weight is nothing where there is no key
    one.total = one.count ? exponentials(one.logits, padded(one.count)) : 1.f;
    std::memset(one.out, 0, width * sizeof(float));
    one.place = 0;
  }
  by_ranges([&](Query& one, long from, long to) {
    const int32_t* keys = one.keys + from;
    const float* weight = one.logits + from;
    if (width == 4 * LANES) return values_of<4, true>(v, width, keys, weight, to - from, one.out);
    long c = 0;
    for (; c + 4 * LANES <= width; c += 4 * LANES)
      values_of<4, false>(v + c, width, keys, weight, to - from, one.out + c);
    for (; c < width; c += LANES)
      values_of<1, false>(v + c, width, keys, weight, to - from, one.out + c);
  });
  for (long i = 0; i < count; ++i) {
    const float factor = 1.f / queries[i].total;
    for (long c = 0; c < width; ++c) queries[i].out[c] *= factor;
  }
}

// ---- tiles -------------------------------------------------------------------------------------

constexpr int FEW = LANES == 16 ? 8 : 4;  // queries of a tile whose sums fit into registers

// Keys of patches (n, width), LANES at a time, as (slices, width, LANES).
static void slice_keys(const float* k, long n, long width, long slice, float* out) {
  for (long c = 0; c < width; c += LANES) {
    Vector block[LANES];
    for (int i = 0; i < LANES; ++i) {
      const long row = slice * LANES + i;
      block[i] = row < n ? load(k + row * width + c) : Vector{};
    }
    transpose(block);
    for (int i = 0; i < LANES; ++i) store(out + (c + i) * LANES, block[i]);
  }
}

// Products of FEW queries with two slices of keys, to left and right of each row of logits
static void slice_logits(const float* q, long width, const float* left, const float* right,
                         float* logits, long stride, long left_at, long right_at) {
  Vector sums[FEW][2] = {};
  for (long c = 0; c < width; ++c) {
    const Vector a = load(left + c * LANES), b = load(right + c * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < FEW; ++r) {
      const float one = q[r * width + c];
      sums[r][0] += one * a;
      sums[r][1] += one * b;
    }
  }
  for (int r = 0; r < FEW; ++r) {
    store(logits + r * stride + left_at, sums[r][0]);
    store(logits + r * stride + right_at, sums[r][1]);
  }
}

// out (FEW, V * LANES) = weights of FEW queries by the values of the tiles, and of the class token
template <int V>
static void tile_values(const Problem& p, const float* v, const int32_t* tile, long count,
                        const float* weight, long stride, const float* factor, float* out) {
  Vector sums[FEW][V] = {};
  const long patches = p.tokens - 1;
  for (long t = 0; t <= count; ++t) {
    const bool of_class = t == count;
    const long first = of_class ? 0 : 1 + (long)tile[t] * TILE;
    const long end = of_class ? 1 : std::min<long>(TILE, patches + 1 - first);
    const float* column = weight + t * TILE;
    for (long i = 0; i < end; ++i) {
      const float* row = v + (first + i) * p.width;
      Vector one[V];
      for (int c = 0; c < V; ++c) one[c] = load(row + c * LANES);
#pragma GCC unroll 8
      for (int r = 0; r < FEW; ++r)
        for (int c = 0; c < V; ++c) sums[r][c] += column[r * stride + i] * one[c];
    }
  }
  for (int r = 0; r < FEW; ++r)
    for (int c = 0; c < V; ++c) store(out + r * p.width + c * LANES, factor[r] * sums[r][c]);
}

// ---- a group of queries ------------------------------------------------------------------------

// What a thread works in.
struct Desk {
  const Problem& p;
  long most = 0;  // coefficients of a query
  float *logits, *weight, *q, *result, *scores, *kept_scores, *attention;
  int32_t *index, *counts, *work, *keys;
  Query* queries;
  float guess = 0;  // see largest

  explicit Desk(const Problem& problem) : p(problem) {}

  static long most_coefficients(const Problem& p) {
    return p.coefficients ? std::min(p.coefficients, p.rows) : p.rows;
  }
  static long row_of_logits(const Problem& p) {
    return (p.rows + COLUMNS - 1) / COLUMNS * COLUMNS;
  }
  // numbers of a query's list of keys, and of its logits
  static long row_of_keys(const Problem& p) {
    const long keys = p.tiles ? p.keep * TILE + 1 : p.keep ? p.keep : p.tokens;
    return padded(keys) + LIST_MARGIN;
  }
  // queries that attend at a time
  static long rows_at_a_time(const Problem& p) {
    if (p.tiles) return TILE;
    return std::clamp<long>(LIST_BYTES / (row_of_keys(p) * 2 * sizeof(float)), 1, GROUP);
  }

  // Lays the desk out at data, or only tells its size where that is null.
  size_t lay(float* data) {
    size_t used = 0;
    const auto take = [&](size_t floats) {
      float* at = data ? data + used : nullptr;
      used += round_up(floats);
      return at;
    };
    const auto take_integers = [&](size_t count) {
      return reinterpret_cast<int32_t*>(take(count));
    };
    const long longest = std::max({p.positions, p.tokens, p.tiles}) + 2 * LANES;
    const long rows = rows_at_a_time(p);
    most = most_coefficients(p);
    logits = take(ROWS * row_of_logits(p));
    weight = take(GROUP * most);
    // a row's list is first all that may count
    index = take_integers(GROUP * most + p.rows + LANES);
    counts = take_integers(GROUP);
    q = take(rows * p.width);
    result = take(rows * p.width);
    scores = take(longest);
    kept_scores = take(longest);
    attention = take(rows * row_of_keys(p));
    work = take_integers(3 * longest);
    keys = take_integers(rows * row_of_keys(p));
    queries = reinterpret_cast<Query*>(take(rows * sizeof(Query) / sizeof(float)));
    return used;
  }

  // which coefficients the queries from `first` on use
  void choose(const float* reduced_q, const float* panels, long count) {
    const long stride = row_of_logits(p);
    for (long i = 0; i < ROWS; ++i)
      for (long j = p.rows; j < stride; ++j) logits[i * stride + j] = NOTHING;
    const bool whole = p.tiles || p.keep == 0;
    for (long first = 0; first < count; first += ROWS) {
      const long height = std::min<long>(ROWS, count - first);
      product(height, p.reduced, p.rows, reduced_q + first * p.reduced, p.reduced, panels,
              p.reduced * COLUMNS, nullptr, false, logits, stride);
      for (long i = 0; i < height; ++i) {
        const long at = (first + i) * most;
        counts[first + i] =
            coefficients_of(p, logits + i * stride, whole, index + at, weight + at);
      }
    }
  }

  // the keys of a query, ascending, to list: how many
  long keys_of(long row, const int64_t* present, int32_t* list) {
    std::memset(scores, 0, padded(p.positions) * sizeof(float));
    for (long i = 0; i < counts[row]; ++i) {
      const float factor = weight[row * most + i];
      const int32_t from = index[row * most + i];
      const Entry* const end = p.entries + p.offsets[from + 1];
      if (i + 1 < counts[row]) {
        const int32_t next = index[row * most + i + 1];
        for (int64_t e = p.offsets[next]; e < p.offsets[next + 1]; e += 8)
          __builtin_prefetch(p.entries + e);
      }
#pragma GCC unroll 8
      for (const Entry* e = p.entries + p.offsets[from]; e < end; ++e)
        scores[e->column] += factor * e->value;
    }
    const float* of_tokens = scores;
    if (present) {
      for (long t = 0; t < p.tokens; ++t) kept_scores[t] = scores[present[t]];
      of_tokens = kept_scores;
    }
    if (p.keep == 0) return where_above<false>(of_tokens, p.tokens, p.least_weight, list);
    return largest(of_tokens, p.tokens, p.keep, work, guess, list);
  }

  // the tiles of a tile of queries, to keys
  void tiles_of(long first, long count, const float* tile_sums) {
    const long stride = padded(p.tiles);
    std::memset(scores, 0, stride * sizeof(float));
    for (long row = first; row < first + count; ++row)
      for (long i = 0; i < counts[row]; ++i) {
        const float factor = weight[row * most + i];
        const float* sums = tile_sums + index[row * most + i] * stride;
        for (long t = 0; t < stride; t += LANES)
          store(scores + t, load(scores + t) + factor * load(sums + t));
      }
    largest(scores, p.tiles, p.keep, work, guess, keys);
  }

  void load_queries(const float* from, long count) {
    const long all = rows_at_a_time(p) * p.width;
    for (long i = 0; i < all; ++i) q[i] = i < count * p.width ? p.scale * from[i] : 0.f;
  }

  // a tile of queries to the tiles in keys
  void attend_tiles(const float* k, const float* v, const float* slices) {
    const long stride = row_of_keys(p), columns = p.keep * SLICES, end = p.keep * TILE;
    const auto slice = [&](long i) {
      return slices + ((long)keys[i / SLICES] * SLICES + i % SLICES) * LANES * p.width;
    };
    for (long r = 0; r < TILE; r += FEW)
      for (long i = 0; i < columns; i += 2) {
        const long j = std::min(i + 1, columns - 1);
        slice_logits(q + r * p.width, p.width, slice(i), slice(j), attention + r * stride, stride,
                     i * LANES, j * LANES);
      }
    const long missing = p.tiles * TILE - (p.tokens - 1);  // of the last tile of keys
    float factor[TILE];
    for (long r = 0; r < TILE; ++r) {
      float* row = attention + r * stride;
      Vector total = {};
      for (long c = 0; c < p.width; c += LANES) total += load(q + r * p.width + c) * load(k + c);
      row[end] = sum(total);
      for (long i = end + 1; i < padded(end + 1); ++i) row[i] = NOTHING;
      for (long t = 0; t < p.keep; ++t)
        if (missing && keys[t] == p.tiles - 1)
          for (long i = TILE - missing; i < TILE; ++i) row[t * TILE + i] = NOTHING;
      factor[r] = 1.f / exponentials(row, padded(end + 1));
    }
    for (long r = 0; r < TILE; r += FEW) {
      long c = 0;
      for (; c + 2 * LANES <= p.width; c += 2 * LANES)
        tile_values<2>(p, v + c, keys, p.keep, attention + r * stride, stride, factor + r,
                       result + r * p.width + c);
      for (; c < p.width; c += LANES)
        tile_values<1>(p, v + c, keys, p.keep, attention + r * stride, stride, factor + r,
                       result + r * p.width + c);
    }
  }

  // the queries of patches first to first + count of a head
  void run(long image, long head, long first, long count) {
    const long at = image * p.heads + head, patches = p.tokens - 1;
    const float* k = p.k + at * p.tokens * p.width;
    const float* v = p.v + at * p.tokens * p.width;
    const float* from = p.q + (at * p.tokens + 1) * p.width;
    choose(p.reduced_q + (at * patches + first) * p.reduced,
           p.panels + at * row_of_logits(p) * p.reduced, count);
    const int64_t* present = p.present ? p.present + image * p.tokens : nullptr;
    const long step = rows_at_a_time(p), stride = row_of_keys(p);
    for (long row = 0; row < count; row += step) {
      const long rows = std::min<long>(step, count - row);
      load_queries(from + (first + row) * p.width, rows);
      if (p.tiles) {
        tiles_of(row, rows, p.tile_sums + image * p.tile_sums_stride);
        attend_tiles(k, v, p.slices + at * p.tiles * TILE * p.width);
      } else {
        for (long i = 0; i < rows; ++i) {
          int32_t* list = keys + i * stride;
          const long found = keys_of(row + i, present, list);
          queries[i] = {q + i * p.width, attention + i * stride, result + i * p.width, list, found,
                        0, 0.f};
        }
        attend(p, queries, rows, k, v);
      }
      const long token = image * p.tokens + 1 + first + row;
      float* out = p.out + (token * p.heads + head) * p.channels;
      for (long i = 0; i < rows; ++i)
        std::memcpy(out + i * p.heads * p.channels, result + i * p.width,
                    p.channels * sizeof(float));
    }
  }
};

extern "C" {

int64_t sparsevit_columns() { return COLUMNS; }
int64_t sparsevit_lanes() { return LANES; }

// Returns 0, or 1 where there is no memory.
int sparsevit_sparse_attention(const Problem* problem, int64_t threads) {
  const Problem& p = *problem;
  return or_no_memory([&] {
    const size_t own = Desk(p).lay(nullptr);
    float* desks = scratch.of(threads * own);
    const long patches = p.tokens - 1, heads = p.images * p.heads;
    const long groups = (patches + GROUP - 1) / GROUP, slices = p.tiles * SLICES;
#pragma omp parallel num_threads(threads)
    {
      Desk desk(p);
      desk.lay(desks + omp_get_thread_num() * own);
#pragma omp for schedule(static)
      for (long i = 0; i < heads * slices; ++i)
        slice_keys(p.k + (i / slices * p.tokens + 1) * p.width, patches, p.width, i % slices,
                   p.slices + i * LANES * p.width);
#pragma omp for schedule(dynamic)
      for (long i = 0; i < heads * groups; ++i) {
        const long head = i / groups, first = i % groups * GROUP;
        desk.run(head / p.heads, head % p.heads, first, std::min<long>(GROUP, patches - first));
      }
    }
  });
}

}  // extern "C"
