// What a Swin Transformer computes, for float32 inference on a CPU: a block on listed windows of a
// map, in place; and the embedding, merging and giving out of patches.
//
// A window's tokens are gathered, and stay in the caches of one core until the block is done with
// them: norm, queries, keys and values, attention, projection, residual, norm, FFN, residual. Only
// then are they written back. The products are register blocked (ROWS x COLUMNS sums at a time);
// weights come in panels of COLUMNS outputs, (outputs / COLUMNS, inputs, COLUMNS).
//
// Two orders of work. Where windows are many, each thread takes a few at a time through everything.
// Where they are few, threads share them by rows of tokens for the products and by (window, head)
// for attention, and wait for each other in between.
//
// Built by build.py; called through swin.py, whose structures these are.

#include "vectors.h"

// x * Phi(x). Phi(x) - 1/2 = x * p(x^2) / q(x^2), fitted to 1e-8 up to 5.54, where it is 1/2 to
// within float32.
static inline Vector gelu(Vector x) {
  const Vector most = Vector{} + 5.54f;
  Vector z = x < most ? x : most;
  z = z > -most ? z : -most;
  const Vector t = z * z;
  Vector p = 2.248028360168553e-08f * t + 6.352200464147256e-06f;
  p = p * t + 0.00017094812140319729f;
  p = p * t + 0.004689871616011715f;
  p = p * t + 0.03407547924832877f;
  p = p * t + 0.3989422293774358f;
  Vector q = 1.1896713001573962e-06f * t + 7.425311871981245e-05f;
  q = q * t + 0.0018964862183214561f;
  q = q * t + 0.0287707119514947f;
  q = q * t + 0.25208039501683754f;
  q = q * t + 1.0f;
  return x * (x > -most ? 0.5f + z * p / q : Vector{});
}

// ---- what the caller hands over: structures of swin.py --------------------------------------

struct Linear {
  const float* panels;
  const float* bias;  // outputs, rounded up to whole panels
};

struct Norm {
  const float* weight;
  const float* bias;
  double epsilon;
};

struct Block {
  int64_t channels, heads, hidden, tokens;  // tokens: of a window
  Norm norm1, norm2;
  Linear qkv, proj, grow, shrink;  // scale and log2(e) are in the queries' part of qkv
  const float* position_bias;      // (heads, tokens, padded tokens) * log2(e)
  const float* masks;              // (kinds, tokens, padded tokens) * log2(e), or null
};

struct Merging {
  int64_t images, height, width, channels;  // of the map that comes in
  Norm norm;        // over the four tokens of a patch side by side, upper left, upper right, ...
  Linear reduction;
  int64_t outputs;
};

struct Embedding {
  int64_t images, channels, height, width, patch;  // of the images; sides of a patch in pixels
  Linear projection;                               // of (channel, row, column) of a patch
  Norm norm;                                       // weight is null where there is none
  int64_t outputs;
};

struct Windows {
  int64_t count;
  const int64_t* rows;     // (count, tokens)
  const uint8_t* padding;  // (count, tokens), or null
  const int64_t* kinds;    // (count,): which of the masks, or null
};

static void normalise(const Norm& norm, int C, const float* x, float* y) {
  const int whole = C / LANES * LANES;
  Vector total = {};
  for (int c = 0; c < whole; c += LANES) total += load(x + c);
  float mean = sum(total);
  for (int c = whole; c < C; ++c) mean += x[c];
  mean /= C;
  Vector squares = {};
  for (int c = 0; c < whole; c += LANES) {
    const Vector d = load(x + c) - mean;
    squares += d * d;
  }
  float variance = sum(squares);
  for (int c = whole; c < C; ++c) variance += (x[c] - mean) * (x[c] - mean);
  const float rate = 1.f / __builtin_sqrtf(variance / C + (float)norm.epsilon);
  for (int c = 0; c < whole; c += LANES)
    store(y + c, (load(x + c) - mean) * rate * load(norm.weight + c) + load(norm.bias + c));
  for (int c = whole; c < C; ++c) y[c] = (x[c] - mean) * rate * norm.weight[c] + norm.bias[c];
}

// ---- steps of a block -------------------------------------------------------------------------

struct Work {
  const Block& block;
  const Windows& windows;
  float* map;
  bool pad_before_norm;

  int C = block.channels, N = block.tokens, head = C / block.heads;
  int padded = (N + COLUMNS - 1) / COLUMNS * COLUMNS;
  int chunk = std::min<int64_t>(block.hidden, 384);  // hidden channels at a time, in whole panels

  bool is_padding(long row) const { return windows.padding && windows.padding[row]; }

  // rows first to last of the list: gathered to x, normalised to y
  void gather(long first, long last, float* x, float* y) const {
    for (long r = first; r < last; ++r, x += C, y += C) {
      if (is_padding(r)) {
        std::fill_n(x, C, 0.f);
        if (!pad_before_norm) {
          std::fill_n(y, C, 0.f);
          continue;
        }
      } else {
        std::memcpy(x, map + windows.rows[r] * C, C * sizeof(float));
      }
      normalise(block.norm1, C, x, y);
    }
  }

  void queries_keys_values(long rows, const float* y, float* qkv) const {
    product(rows, C, 3 * C, y, C, block.qkv.panels, (long)C * COLUMNS, block.qkv.bias, false, qkv,
            3 * C);
  }

  long attention_floats() const {
    return (long)padded * head + (long)N * padded + (long)N * COLUMNS;
  }

  // the keys of a head (N rows, head), by channel first: (padded / COLUMNS, head, COLUMNS)
  void turn(const float* k, long stride, float* keys) const {
    const int whole = head / LANES * LANES;
    for (int j = 0; j < padded; j += LANES) {
      float* to = keys + (long)(j / COLUMNS) * head * COLUMNS + j % COLUMNS;
      for (int d = 0; d < whole; d += LANES) {
        Vector tile[LANES];
        for (int i = 0; i < LANES; ++i)
          tile[i] = j + i < N ? load(k + (j + i) * stride + d) : Vector{};
        transpose(tile);
        for (int i = 0; i < LANES; ++i) store(to + (d + i) * COLUMNS, tile[i]);
      }
      for (int d = whole; d < head; ++d)
        for (int i = 0; i < LANES; ++i)
          to[d * COLUMNS + i] = j + i < N ? k[(j + i) * stride + d] : 0.f;
    }
  }

  // one head of one window; qkv (N, 3C) and out (N, C) begin at the window
  void attend(long window, int h, const float* qkv, float* out, float* scratch) const {
    const long stride = 3 * C;
    float* keys = scratch;
    float* weights = keys + (long)padded * head;
    float* values = weights + (long)N * padded;
    const float* q = qkv + h * head;
    const float* k = q + C;
    const float* v = k + C;
    turn(k, stride, keys);
    product(N, head, padded, q, stride, keys, (long)head * COLUMNS, nullptr, false, weights,
            padded);

    const float* bias = block.position_bias + (long)h * N * padded;
    const int64_t kind = windows.kinds ? windows.kinds[window] : 0;
    const float* mask = kind ? block.masks + kind * N * padded : nullptr;
    for (int i = 0; i < N; ++i) {
      float* row = weights + (long)i * padded;
      Vector best = Vector{} - 3e38f;
      for (int j = 0; j < padded; j += LANES) {
        Vector logits = load(row + j) + load(bias + (long)i * padded + j);
        if (mask) logits += load(mask + (long)i * padded + j);
        store(row + j, logits);
        best = larger(best, logits);
      }
      const float highest = most(best);
      Vector total = {};
      for (int j = 0; j < padded; j += LANES) {
        const Vector w = power_of_two(load(row + j) - highest);
        store(row + j, w);
        total += w;
      }
      const float share = 1.f / sum(total);
      for (int j = 0; j < padded; j += LANES) store(row + j, load(row + j) * share);
    }

    for (int d = 0; d < head; d += COLUMNS) {
      const int columns = std::min(COLUMNS, head - d);
      for (int j = 0; j < N; ++j) {
        std::memcpy(values + j * COLUMNS, v + j * stride + d, columns * sizeof(float));
        std::fill_n(values + j * COLUMNS + columns, COLUMNS - columns, 0.f);
      }
      product(N, N, columns, weights, padded, values, 0, nullptr, false, out + h * head + d, C);
    }
  }

  // what follows attention: y is what it gave out, and overwritten
  void finish(long first, long last, float* x, float* y, float* grown) const {
    const long rows = last - first;
    product(rows, C, C, y, C, block.proj.panels, (long)C * COLUMNS, block.proj.bias, true, x, C);
    for (long r = 0; r < rows; ++r) normalise(block.norm2, C, x + r * C, y + r * C);
    for (int h = 0; h < block.hidden; h += chunk) {
      const int width = std::min<int64_t>(chunk, block.hidden - h);
      for (int j = 0; j < width; j += COLUMNS) {
        const int columns = std::min(COLUMNS, width - j);
        product(rows, C, columns, y, C, block.grow.panels + (long)(h + j) * C,
                (long)C * COLUMNS, block.grow.bias + h + j, false, grown + j, chunk);
        const int whole = columns / LANES * LANES;
        for (long r = 0; r < rows; ++r) {
          float* g = grown + r * chunk + j;
          for (int c = 0; c < whole; c += LANES) store(g + c, gelu(load(g + c)));
          if (whole < columns) {
            float rest[LANES] = {};
            std::copy(g + whole, g + columns, rest);
            store(rest, gelu(load(rest)));
            std::copy(rest, rest + columns - whole, g + whole);
          }
        }
      }
      // the inputs h to h + width of each panel of shrink
      product(rows, width, C, grown, chunk, block.shrink.panels + (long)h * COLUMNS,
              block.hidden * COLUMNS, h == 0 ? block.shrink.bias : nullptr, true, x, C);
    }
    for (long r = 0; r < rows; ++r)
      if (!is_padding(first + r))
        std::memcpy(map + windows.rows[first + r] * C, x + r * C, C * sizeof(float));
  }
};

// ---- orders of work -------------------------------------------------------------------------

// Rows cut into parts of whole strips of ROWS: each part holds about as many as are held at a time,
// and all threads have as many parts.
struct Parts {
  long rows, strips, count;

  Parts(long rows, long held, int threads) : rows(rows), strips((rows + ROWS - 1) / ROWS) {
    const long at_once = threads * std::max<long>(ROWS, held);
    count = std::min(strips, (rows + at_once - 1) / at_once * threads);
  }
  long first(long part) const { return strips * part / count * ROWS; }
  long last(long part) const { return std::min(rows, strips * (part + 1) / count * ROWS); }
  long longest() const { return (strips / count + 1) * ROWS; }
};

// ---- a whole block ----------------------------------------------------------------------------

static void few_windows(const Work& work, int threads, long budget) {
  const Block& block = work.block;
  const int C = work.C, N = work.N;
  const long rows = work.windows.count * N;
  const Parts parts(rows, budget / (2 * C + work.chunk), threads);
  const size_t all = round_up(rows * C);
  const size_t own = round_up(std::max<long>(parts.longest() * work.chunk, work.attention_floats()));
  float* x = scratch.of(2 * all + round_up(3 * rows * C) + threads * own);
  float* y = x + all;
  float* qkv = y + all;
  float* owned = qkv + round_up(3 * rows * C);
#pragma omp parallel num_threads(threads)
  {
    float* mine = owned + omp_get_thread_num() * own;
#pragma omp for schedule(static)
    for (long p = 0; p < parts.count; ++p) {
      const long first = parts.first(p), last = parts.last(p);
      work.gather(first, last, x + first * C, y + first * C);
      work.queries_keys_values(last - first, y + first * C, qkv + first * 3 * C);
    }
#pragma omp for schedule(static)
    for (long i = 0; i < work.windows.count * block.heads; ++i) {
      const long window = i / block.heads;
      work.attend(window, i % block.heads, qkv + window * N * 3 * C, y + window * N * C, mine);
    }
#pragma omp for schedule(static)
    for (long p = 0; p < parts.count; ++p) {
      const long first = parts.first(p), last = parts.last(p);
      work.finish(first, last, x + first * C, y + first * C, mine);
    }
  }
}

static void many_windows(const Work& work, int threads, long held) {
  const int C = work.C, N = work.N;
  const long most = held * N, parts = (work.windows.count + held - 1) / held;
  const size_t all = round_up(most * C);
  const size_t own = 2 * all + round_up(3 * most * C) + round_up(most * work.chunk) +
                     round_up(work.attention_floats());
  float* owned = scratch.of(threads * own);
#pragma omp parallel num_threads(threads)
  {
    float* x = owned + omp_get_thread_num() * own;
    float* y = x + all;
    float* qkv = y + all;
    float* grown = qkv + round_up(3 * most * C);
    float* rest = grown + round_up(most * work.chunk);
#pragma omp for schedule(dynamic)
    for (long p = 0; p < parts; ++p) {
      const long window = p * held, stop = std::min(window + held, work.windows.count);
      work.gather(window * N, stop * N, x, y);
      work.queries_keys_values((stop - window) * N, y, qkv);
      for (long w = window; w < stop; ++w)
        for (int h = 0; h < work.block.heads; ++h)
          work.attend(w, h, qkv + (w - window) * N * 3 * C, y + (w - window) * N * C, rest);
      work.finish(window * N, stop * N, x, y, grown);
    }
  }
}

// ---- before, between and after the stages -----------------------------------------------------

// Rows, shared among threads in parts of whole strips: make(first, last, scratch), where scratch
// has so many floats a row.
template <class Make>
static void by_strips(long rows, long floats, int threads, long budget, Make make) {
  if (rows == 0) return;
  const Parts parts(rows, budget / floats, threads);
  const size_t own = round_up(parts.longest() * floats);
  float* owned = scratch.of(threads * own);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long p = 0; p < parts.count; ++p)
    make(parts.first(p), parts.last(p), owned + omp_get_thread_num() * own);
}

static void embed(const Embedding& embedding, const float* images, float* out, int threads,
                  long budget) {
  const long H = embedding.height, W = embedding.width, side = embedding.patch;
  const long down = (H + side - 1) / side, over = (W + side - 1) / side;
  const long inner = embedding.channels * side * side, O = embedding.outputs;
  by_strips(embedding.images * down * over, inner, threads, budget / 2,
            [&](long first, long last, float* y) {
    for (long p = first; p < last; ++p) {
      const long left = p % over * side, top = p / over % down * side, image = p / over / down;
      const long columns = std::min(side, W - left);
      float* to = y + (p - first) * inner;
      for (long c = 0; c < embedding.channels; ++c)
        for (long i = 0; i < side; ++i, to += side) {
          const float* row = images + ((image * embedding.channels + c) * H + top + i) * W + left;
          const long there = top + i < H ? columns : 0;
          for (long j = 0; j < side; ++j) to[j] = j < there ? row[j] : 0.f;
        }
    }
    // a few at a time, which the norm then finds nearby
    for (long r = first; r < last; r += 4 * ROWS) {
      const long rows = std::min<long>(4 * ROWS, last - r);
      product(rows, inner, O, y + (r - first) * inner, inner, embedding.projection.panels,
              inner * COLUMNS, embedding.projection.bias, false, out + r * O, O);
      if (embedding.norm.weight)
        for (long i = r; i < r + rows; ++i)
          normalise(embedding.norm, O, out + i * O, out + i * O);
    }
  });
}

// the tokens 2i and 2i + 1 of a row of the map, or zeros beyond its end
static void copy_pair(const float* row, long i, long width, long C, float* to) {
  const long there = row ? std::clamp<long>(width - 2 * i, 0, 2) : 0;
  if (there) std::memcpy(to, row + 2 * i * C, there * C * sizeof(float));
  std::fill_n(to + there * C, (2 - there) * C, 0.f);
}

static void merge(const Merging& merging, const float* map, float* out, int threads, long budget) {
  const long H = merging.height, W = merging.width, C = merging.channels, O = merging.outputs;
  const long down = (H + 1) / 2, over = (W + 1) / 2;
  by_strips(merging.images * down * over, 4 * C, threads, budget / 2,
            [&](long first, long last, float* y) {
    for (long p = first; p < last; ++p) {
      const long i = p % over, top = 2 * (p / over % down), image = p / over / down;
      const float* upper = map + (image * H + top) * W * C;
      float* patch = y + (p - first) * 4 * C;
      copy_pair(upper, i, W, C, patch);
      copy_pair(top + 1 < H ? upper + W * C : nullptr, i, W, C, patch + 2 * C);
      normalise(merging.norm, 4 * C, patch, patch);
    }
    product(last - first, 4 * C, O, y, 4 * C, merging.reduction.panels, 4 * C * COLUMNS,
            merging.reduction.bias, false, out + first * O, O);
  });
}

// (images, tokens, C) -> (images, C, tokens), normalised
static void give_out(const Norm& norm, long images, long tokens, int C, const float* x, float* out,
                     int threads) {
  constexpr long HELD = 4 * LANES;
  const long tiles = (tokens + HELD - 1) / HELD;
  const size_t own = round_up(HELD * C);
  float* owned = scratch.of(threads * own);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long t = 0; t < images * tiles; ++t) {
    const long image = t / tiles, first = t % tiles * HELD;
    const long count = std::min(HELD, tokens - first);
    float* y = owned + omp_get_thread_num() * own;
    for (long r = 0; r < count; ++r)
      normalise(norm, C, x + (image * tokens + first + r) * C, y + r * C);
    float* to = out + image * C * tokens + first;
    const long whole_rows = count / LANES * LANES;
    const int whole = C / LANES * LANES;
    for (int c = 0; c < whole; c += LANES)
      for (long r = 0; r < whole_rows; r += LANES) {
        Vector tile[LANES];
        for (int i = 0; i < LANES; ++i) tile[i] = load(y + (r + i) * C + c);
        transpose(tile);
        for (int i = 0; i < LANES; ++i) store(to + (c + i) * tokens + r, tile[i]);
      }
    for (int c = 0; c < C; ++c)
      for (long r = c < whole ? whole_rows : 0; r < count; ++r) to[c * tokens + r] = y[r * C + c];
  }
}

// what of a core's cache may hold tokens
static long floats_of(int64_t cache) { return cache / 10 * 8 / sizeof(float); }

extern "C" {

int64_t sparsevit_columns() { return COLUMNS; }

// All of the following return 0, or 1 where there is no memory. cache: bytes that a core has to
// itself (its L2).

int sparsevit_swin_block(const Block* block, const Windows* windows, float* map,
                         int64_t pad_before_norm, int64_t threads, int64_t cache) {
  if (windows->count == 0) return 0;
  const Work work{*block, *windows, map, pad_before_norm != 0};
  const long budget = floats_of(cache);
  const long held =
      std::clamp<long>(budget / ((5 * block->channels + work.chunk) * block->tokens), 1, 4);
  return or_no_memory([&] {
    if (windows->count >= 8 * threads * held)
      many_windows(work, threads, held);
    else
      few_windows(work, threads, budget);
  });
}

// images (images, channels, height, width) -> out (images, patches, outputs)
int sparsevit_embed(const Embedding* embedding, const float* images, float* out, int64_t threads,
                    int64_t cache) {
  return or_no_memory([&] { embed(*embedding, images, out, threads, floats_of(cache)); });
}

// map (images, height, width, channels) -> out (images, height / 2, width / 2, outputs)
int sparsevit_merge_patches(const Merging* merging, const float* map, float* out, int64_t threads,
                            int64_t cache) {
  return or_no_memory([&] { merge(*merging, map, out, threads, floats_of(cache)); });
}

// map (images, tokens, channels) -> out (images, channels, tokens)
int sparsevit_feature_map(const Norm* norm, int64_t images, int64_t tokens, int64_t channels,
                          const float* map, float* out, int64_t threads, int64_t) {
  return or_no_memory([&] { give_out(*norm, images, tokens, channels, map, out, threads); });
}

}  // extern "C"
