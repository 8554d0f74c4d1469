// Attention of one sequence and one key-value head, in f32 whatever the type of what goes in and out.
#pragma once
#include "rows.h"
#include "vector.h"

namespace {

// e^(x + mask - greatest) of a row of f32, in place; returns what they are to be multiplied by to be a softmax. A row of which nothing is seen
// becomes NaN.
INLINE float exponentials(float *x, const float *mask, int64_t n) {
  if (mask)
    for (int64_t i = 0; i < n; i += WIDE) store(x + i, load(x + i, n - i) + load(mask + i, n - i), n - i);
  float most = greatest(x, n);
  F total = {};
  for (int64_t i = 0; i < n; i += WIDE) {
    F v = exponential(load(x + i, n - i, NOTHING) - most);
    store(x + i, v, n - i);
    total += v;
  }
  return 1.0f / sum(total);
}

INLINE F hyperbolic(F x) {
  F e = exponential(choose(x > 0.0f, -2.0f * x, 2.0f * x)), t = (1.0f - e) / (1.0f + e);
  return choose(x < 0.0f, -t, t);
}

// Caps the first `n` scores; `slopes` is null, or takes what that makes of a gradient of each.
INLINE void capped(float *row, float cap, float *slopes, int64_t n) {
  for (int64_t j = 0; j < n; j += WIDE) {
    F t = hyperbolic(load(row + j, n - j) / cap);
    if (slopes) store(slopes + j, 1.0f - t * t, n - j);
    store(row + j, cap * t, n - j);
  }
}

// How many registers there are says how many vectors of a head are held at once, and how many of what a product makes: so many rows of so many.
#ifdef __AVX512F__
constexpr int HELD = 4, TALL = 6, BROAD = 4;
#else
constexpr int HELD = 2, TALL = 6, BROAD = 2;
#endif

// Adds to the scores of `Q` queries, `[Q, keys]`, what `V` vectors of each head from `at` on contribute.
template <typename T, int Q, int V>
INLINE void dots(const T *q, const T *k, float *scores, int64_t keys, int64_t head_dim, int64_t at, bool add) {
  F own[Q][V];
  for (int i = 0; i < Q; i++)
    for (int v = 0; v < V; v++) own[i][v] = load(q + i * head_dim + at + v * WIDE, head_dim - at - v * WIDE);
  for (int64_t key = 0; key < keys; key++) {
    F there[V];
    for (int v = 0; v < V; v++) there[v] = load(k + key * head_dim + at + v * WIDE, head_dim - at - v * WIDE);
    for (int i = 0; i < Q; i++) {
      F dot = own[i][0] * there[0];
      for (int v = 1; v < V; v++) dot += own[i][v] * there[v];
      scores[i * keys + key] = sum(dot) + (add ? scores[i * keys + key] : 0.0f);
    }
  }
}

// The values under `Q` rows of weights, of `V` vectors of each head from `at` on.
template <typename T, int Q, int V>
INLINE void mixed(const float *weights, const float *shares, const T *values, T *out, int64_t keys, int64_t head_dim, int64_t at) {
  F sums[Q][V] = {};
  for (int64_t key = 0; key < keys; key++)
    for (int v = 0; v < V; v++) {
      F there = load(values + key * head_dim + at + v * WIDE, head_dim - at - v * WIDE);
      for (int i = 0; i < Q; i++) sums[i][v] += weights[i * keys + key] * there;
    }
  for (int i = 0; i < Q; i++)
    for (int v = 0; v < V; v++) store(out + i * head_dim + at + v * WIDE, sums[i][v] * shares[i], head_dim - at - v * WIDE);
}

template <typename T, int Q>
INLINE void attend_some(const T *q, const T *k, const T *v, const float *mask, T *out, float *room, int64_t keys, int64_t head_dim,
                        float scale, float cap) {
  int64_t at = 0;
  for (; at + HELD * WIDE <= head_dim; at += HELD * WIDE) dots<T, Q, HELD>(q, k, room, keys, head_dim, at, at > 0);
  for (; at < head_dim; at += WIDE) dots<T, Q, 1>(q, k, room, keys, head_dim, at, at > 0);
  float shares[Q];
  for (int i = 0; i < Q; i++) {
    float *own = room + i * keys;
    for (int64_t key = 0; key < keys; key++) own[key] *= scale;
    if (cap > 0) capped(own, cap, nullptr, keys);
    shares[i] = exponentials(own, mask, keys);
  }
  for (at = 0; at + HELD * WIDE <= head_dim; at += HELD * WIDE) mixed<T, Q, HELD>(room, shares, v, out, keys, head_dim, at);
  for (; at < head_dim; at += WIDE) mixed<T, Q, 1>(room, shares, v, out, keys, head_dim, at);
}

template <typename T>
void attend(const T *q, const T *k, const T *v, const float *mask, T *out, float *room, int64_t queries, int64_t keys,
            int64_t head_dim, float scale, float cap) {
  int64_t i = 0;
  for (; i + 4 <= queries; i += 4) attend_some<T, 4>(q + i * head_dim, k, v, mask, out + i * head_dim, room, keys, head_dim, scale, cap);
  q += i * head_dim, out += i * head_dim;
  if (queries - i == 3) attend_some<T, 3>(q, k, v, mask, out, room, keys, head_dim, scale, cap);
  if (queries - i == 2) attend_some<T, 2>(q, k, v, mask, out, room, keys, head_dim, scale, cap);
  if (queries - i == 1) attend_some<T, 1>(q, k, v, mask, out, room, keys, head_dim, scale, cap);
}

// A matrix of f32 whose element (i, p) lies at `i * row + p * column`.
struct Seen {
  const float *at;
  int64_t row, column;
};

template <int R, int V>
INLINE void tile(Seen a, const float *b, int64_t b_row, float *c, int64_t c_row, int64_t inner, bool add) {
  F sums[R][V];
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) sums[r][v] = add ? load(c + r * c_row + v * WIDE) : F{};
  for (int64_t p = 0; p < inner; p++) {
    F own[V];
    for (int v = 0; v < V; v++) own[v] = load(b + p * b_row + v * WIDE);
    for (int r = 0; r < R; r++) {
      float left = a.at[r * a.row + p * a.column];
      for (int v = 0; v < V; v++) sums[r][v] += left * own[v];
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) store(c + r * c_row + v * WIDE, sums[r][v]);
}

template <int R> INLINE void strip(Seen a, const float *b, int64_t b_row, float *c, int64_t c_row, int64_t columns, int64_t inner, bool add) {
  int64_t j = 0;
  for (; j + BROAD * WIDE <= columns; j += BROAD * WIDE) tile<R, BROAD>(a, b + j, b_row, c + j, c_row, inner, add);
  for (; j < columns; j += WIDE) tile<R, 1>(a, b + j, b_row, c + j, c_row, inner, add);
}

// c (=, +=) a * b; `columns` is a multiple of 16.
void product(Seen a, const float *b, int64_t b_row, float *c, int64_t c_row, int64_t rows, int64_t columns, int64_t inner, bool add) {
  int64_t i = 0;
  for (; i + TALL <= rows; i += TALL) strip<TALL>({a.at + i * a.row, a.row, a.column}, b, b_row, c + i * c_row, c_row, columns, inner, add);
  for (; i + 3 <= rows; i += 3) strip<3>({a.at + i * a.row, a.row, a.column}, b, b_row, c + i * c_row, c_row, columns, inner, add);
  for (; i < rows; i++) strip<1>({a.at + i * a.row, a.row, a.column}, b, b_row, c + i * c_row, c_row, columns, inner, add);
}

INLINE int64_t even(int64_t n) { return (n + WIDE - 1) / WIDE * WIDE; }

// Rows of `n` numbers in f32, `times` as large, filled up with zeros to `wide`.
template <typename T> void widen(const T *from, int64_t stride, float *to, int64_t rows, int64_t n, int64_t wide, float times = 1.0f) {
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 0; i < wide; i += WIDE) store(to + row * wide + i, i < n ? load(from + row * stride + i, n - i) * times : F{});
}

template <typename T> void narrow(const float *from, int64_t wide, T *to, int64_t stride, int64_t rows, int64_t n, float times = 1.0f) {
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 0; i < n; i += WIDE) store(to + row * stride + i, load(from + row * wide + i) * times, n - i);
}

void transpose(const float *from, int64_t wide, float *to, int64_t tall, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    for (int64_t row = 0; row < rows; row++) to[i * tall + row] = from[row * wide + i];
    for (int64_t row = rows; row < tall; row++) to[i * tall + row] = 0;
  }
}

// Probabilities of `count` queries from `first` on in `p`, `[count, keys filled up]`, and how many keys the last of them sees. `q` has the
// scale in it. `slopes` is as `capped` has it.
int64_t probabilities(const Attention &a, const float *q, const float *k_turned, int64_t first, int64_t count, float *p, float *slopes) {
  int64_t tall = even(a.keys), dim = even(a.head_dim), hidden = a.keys - a.queries, seen = hidden + first + count, some = even(seen);
  product({q, dim, 1}, k_turned, tall, p, tall, count, some, a.head_dim, false);
  for (int64_t i = 0; i < count; i++) {
    float *row = p + i * tall;
    int64_t own = hidden + first + i + 1;
    if (a.cap > 0) capped(row, a.cap, slopes ? slopes + i * tall : nullptr, own);
    float share = exponentials(row, a.mask ? a.mask + (first + i) * a.keys : nullptr, own);
    for (int64_t j = own; j < some; j++) row[j] = 0;
    for (int64_t j = 0; j < some; j += WIDE) store(row + j, load(row + j) * share);
  }
  return seen;
}

template <typename T> void attention(const Attention &a) {
  int64_t tall = even(a.keys), dim = even(a.head_dim);
  float *k_turned = a.room, *v = k_turned + tall * dim, *q = v + tall * dim, *out = q + QUERIES * dim, *p = out + QUERIES * dim;
  widen((const T *)a.k, a.head_dim, v, a.keys, a.head_dim, dim);
  transpose(v, dim, k_turned, tall, a.keys, a.head_dim);
  widen((const T *)a.v, a.head_dim, v, a.keys, a.head_dim, dim);
  for (int64_t head = 0; head < a.group; head++)
    for (int64_t first = 0; first < a.queries; first += QUERIES) {
      int64_t count = a.queries - first < QUERIES ? a.queries - first : QUERIES;
      widen((const T *)a.q + (head * a.queries + first) * a.head_dim, a.head_dim, q, count, a.head_dim, dim, a.scale);
      int64_t seen = probabilities(a, q, k_turned, first, count, p, nullptr);
      product({p, tall, 1}, v, dim, out, dim, count, dim, seen, false);
      narrow(out, dim, (T *)a.out + first * a.stride + head * a.head_dim, a.stride, count, a.head_dim);
    }
}

template <typename T> void attention_back(const Attention &a) {
  int64_t tall = even(a.keys), dim = even(a.head_dim), all = tall * dim;
  float *k = a.room, *k_turned = k + all, *v_turned = k_turned + all, *dk = v_turned + all, *dv = dk + all;
  float *q = dv + all, *g = q + QUERIES * dim, *dq = g + QUERIES * dim, *p = dq + QUERIES * dim, *dp = p + QUERIES * tall;
  float *slopes = dp + QUERIES * tall;
  widen((const T *)a.v, a.head_dim, k, a.keys, a.head_dim, dim);
  transpose(k, dim, v_turned, tall, a.keys, a.head_dim);
  widen((const T *)a.k, a.head_dim, k, a.keys, a.head_dim, dim);
  transpose(k, dim, k_turned, tall, a.keys, a.head_dim);
  for (int64_t i = 0; i < 2 * all; i++) dk[i] = 0;
  for (int64_t head = 0; head < a.group; head++)
    for (int64_t first = 0; first < a.queries; first += QUERIES) {
      int64_t count = a.queries - first < QUERIES ? a.queries - first : QUERIES, at = (head * a.queries + first) * a.head_dim;
      widen((const T *)a.q + at, a.head_dim, q, count, a.head_dim, dim, a.scale);
      widen((const T *)a.g + first * a.stride + head * a.head_dim, a.stride, g, count, a.head_dim, dim);
      int64_t seen = probabilities(a, q, k_turned, first, count, p, a.cap > 0 ? slopes : nullptr), some = even(seen);
      product({g, dim, 1}, v_turned, tall, dp, tall, count, some, a.head_dim, false);
      product({p, 1, tall}, g, dim, dv, dim, seen, dim, count, true);
      for (int64_t i = 0; i < count; i++) {
        float *own = p + i * tall, *by = dp + i * tall;
        F along = {};
        for (int64_t j = 0; j < some; j += WIDE) along += load(own + j) * load(by + j);
        float mean = sum(along);
        for (int64_t j = 0; j < some; j += WIDE) store(by + j, load(own + j) * (load(by + j) - mean));
        if (a.cap > 0)
          for (int64_t j = 0; j < a.keys - a.queries + first + i + 1; j++) by[j] *= slopes[i * tall + j];
      }
      product({dp, tall, 1}, k, dim, dq, dim, count, dim, seen, false);
      product({dp, 1, tall}, q, dim, dk, dim, seen, dim, count, true);
      narrow(dq, dim, (T *)a.dq + at, a.head_dim, count, a.head_dim, a.scale);
    }
  narrow(dk, dim, (T *)a.dk, a.head_dim, a.keys, a.head_dim);
  narrow(dv, dim, (T *)a.dv, a.head_dim, a.keys, a.head_dim);
}

}  // namespace
