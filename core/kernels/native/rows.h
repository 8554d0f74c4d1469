// What is computed row by row, for one CPU level. `rows.cpp` is compiled once for each level; `kernels.cpp` takes the best that the CPU has.
#pragma once
#include <stdint.h>

// One sequence and one key-value head. `q` is `[group, queries, head_dim]`, `k` and `v` `[keys, head_dim]`, `mask` `[queries, keys]` in f32 or
// null, `out` `[queries, …]` with `stride` numbers from token to token and `head_dim` from head to head.
struct Attention {
  int64_t group, queries, keys, head_dim, stride;
  float scale, cap;
  const void *q, *k, *v;
  const float *mask;
  void *out;
  // Of the way back: the gradient of `out`, laid out as it is, and those of `q`, `k` and `v`.
  const void *g;
  void *dq, *dk, *dv;
  // As many f32 as `attention_room` says.
  float *room;
};

// Numbers are f32 or bf16, as `wide` says.
struct Rows {
  void (*rms)(bool wide, const void *x, const void *w, void *out, int64_t rows, int64_t d, float eps, bool plus_one);
  // `dw` is `[d]` in f32, added to.
  void (*rms_back)(bool wide, const void *g, const void *x, const void *w, void *dx, float *dw, int64_t rows, int64_t d, float eps,
                   bool plus_one);
  // `x` is `[rows, 2 d]`, `out` `[rows, d]`.
  void (*silu)(bool wide, const void *x, void *out, int64_t rows, int64_t d);
  void (*silu_back)(bool wide, const void *g, const void *x, void *dx, int64_t rows, int64_t d);
  // One head of one token: the first `dims` numbers turned, the others as they are; backwards if `back`.
  void (*turn)(bool wide, const void *x, const void *cos, const void *sin, void *out, int64_t dims, int64_t head_dim, bool back);
  // The queries of one key-value head over its keys and values: `q` and `out` are `[queries, head_dim]`, `mask` `[keys]` in f32 or null,
  // `room` `[queries, keys]` in f32.
  void (*attend)(bool wide, const void *q, const void *k, const void *v, const float *mask, void *out, float *room, int64_t queries,
                 int64_t keys, int64_t head_dim, float scale, float cap);
  // Causal attention of the queries of `group` heads, which are the last ones of all positions, over one key-value head: see `Attention`.
  void (*attention)(bool wide, const struct Attention *);
  void (*attention_back)(bool wide, const struct Attention *);
  // Log-probs of targets under softmax(x * cold), and the gradient of `x`. `norms` has two numbers of each row: its greatest, and the log of
  // the sum of all e^((x - greatest) * cold).
  void (*chosen)(bool wide, const void *x, const int64_t *targets, float *out, float *norms, int64_t rows, int64_t vocab, float cold);
  void (*chosen_back)(bool wide, const void *x, const int64_t *targets, const float *norms, const float *g, void *dx, int64_t rows,
                      int64_t vocab, float cold);
  // The token at which the cumulative probability passes `uniform` times the total; -1 where that is not finite.
  void (*draw)(const float *x, const float *uniform, int64_t *out, float *log_probs, int64_t rows, int64_t vocab, float cold);
};

extern const Rows rows_avx2, rows_avx512;

// Queries of a head that are computed at once.
constexpr int64_t QUERIES = 48;

// Room for one sequence and one key-value head; more for the way back.
static inline int64_t attention_room(const Attention &a, bool back) {
  int64_t keys = (a.keys + 15) / 16 * 16, dim = (a.head_dim + 15) / 16 * 16;
  return back ? 5 * keys * dim + QUERIES * (3 * dim + 3 * keys) : 2 * keys * dim + QUERIES * (2 * dim + keys);
}
