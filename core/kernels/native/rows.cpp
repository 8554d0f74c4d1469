// Compiled once for each CPU level, under the name LEVEL. Uses nothing that the linker could share between levels.
#include "rows.h"
#include "vector.h"
#include "attention.h"

namespace {

template <typename T> INLINE float mean_square(const T *x, int64_t d) {
  F squares = {};
  for (int64_t i = 0; i < d; i += WIDE) {
    F v = load(x + i, d - i);
    squares += v * v;
  }
  return sum(squares) / (float)d;
}

template <typename T>
void rms(const T *x, const T *w, T *out, int64_t rows, int64_t d, float eps, bool plus_one) {
  for (int64_t row = 0; row < rows; row++, x += d, out += d) {
    float r = 1.0f / __builtin_sqrtf(mean_square(x, d) + eps);
    for (int64_t i = 0; i < d; i += WIDE) {
      F n = load(x + i, d - i) * r, weight = load(w + i, d - i);
      store(out + i, plus_one ? n * (weight + 1.0f) : weight * rounded(w, n), d - i);
    }
  }
}

template <typename T>
void rms_back(const T *g, const T *x, const T *w, T *dx, float *dw, int64_t rows, int64_t d, float eps, bool plus_one) {
  for (int64_t row = 0; row < rows; row++, g += d, x += d, dx += d) {
    // Numbers whose squares overflow have no gradient, though the way there makes zeros of them.
    float square = mean_square(x, d), r = square < __builtin_inff() ? 1.0f / __builtin_sqrtf(square + eps) : __builtin_nanf("");
    F along = {};
    for (int64_t i = 0; i < d; i += WIDE) {
      F v = load(x + i, d - i), own = load(g + i, d - i), weight = load(w + i, d - i);
      F n = v * r;
      along += (plus_one ? own * (weight + 1.0f) : rounded(w, own * weight)) * n;
      store(dw + i, load(dw + i, d - i) + own * (plus_one ? n : rounded(w, n)), d - i);
    }
    float mean = sum(along) / (float)d;
    for (int64_t i = 0; i < d; i += WIDE) {
      F own = load(g + i, d - i), weight = load(w + i, d - i);
      F dn = plus_one ? own * (weight + 1.0f) : rounded(w, own * weight);
      store(dx + i, r * (dn - load(x + i, d - i) * r * mean), d - i);
    }
  }
}

template <typename T> void silu(const T *x, T *out, int64_t rows, int64_t d) {
  for (int64_t row = 0; row < rows; row++, x += 2 * d, out += d)
    for (int64_t i = 0; i < d; i += WIDE) {
      F a = load(x + i, d - i), b = load(x + d + i, d - i);
      store(out + i, rounded(x, a * sigmoid(a)) * b, d - i);
    }
}

template <typename T> void silu_back(const T *g, const T *x, T *dx, int64_t rows, int64_t d) {
  for (int64_t row = 0; row < rows; row++, g += d, x += 2 * d, dx += 2 * d)
    for (int64_t i = 0; i < d; i += WIDE) {
      F a = load(x + i, d - i), b = load(x + d + i, d - i), own = load(g + i, d - i);
      F s = sigmoid(a);
      store(dx + i, rounded(x, own * b) * s * (1.0f + a * (1.0f - s)), d - i);
      store(dx + d + i, own * rounded(x, a * s), d - i);
    }
}

template <typename T>
void turn(const T *x, const T *cos, const T *sin, T *out, int64_t dims, int64_t head_dim, bool back) {
  int64_t half = dims / 2;
  for (int64_t i = 0; i < half; i += WIDE) {
    int64_t n = half - i;
    F a = load(x + i, n), b = load(x + half + i, n);
    F cos_a = load(cos + i, n), cos_b = load(cos + half + i, n), sin_a = load(sin + i, n), sin_b = load(sin + half + i, n);
    F first = back ? rounded(x, b * sin_b) : -rounded(x, b * sin_a);
    F second = back ? -rounded(x, a * sin_a) : rounded(x, a * sin_b);
    store(out + i, rounded(x, a * cos_a) + first, n);
    store(out + half + i, rounded(x, b * cos_b) + second, n);
  }
  for (int64_t i = dims; i < head_dim; i++) out[i] = x[i];
}

// e^((x - most) * cold) of the numbers from `i` on, 0 behind the last. Differences first: a product with a low temperature's reciprocal is rounded by
// more than what tells tokens apart.
template <typename T> INLINE F odds(const T *x, int64_t i, int64_t n, float most, float cold) {
  return exponential((load(x + i, n - i, NOTHING) - most) * cold);
}

template <typename T>
void chosen(const T *x, const int64_t *targets, float *out, float *norms, int64_t rows, int64_t vocab, float cold) {
  for (int64_t row = 0; row < rows; row++, x += vocab) {
    float most = greatest(x, vocab);
    F total = {};
    for (int64_t i = 0; i < vocab; i += WIDE) total += odds(x, i, vocab, most, cold);
    norms[2 * row] = most, norms[2 * row + 1] = __builtin_logf(sum(total));
    out[row] = (load(x + targets[row], 1)[0] - most) * cold - norms[2 * row + 1];
  }
}

template <typename T>
void chosen_back(const T *x, const int64_t *targets, const float *norms, const float *g, T *dx, int64_t rows, int64_t vocab, float cold) {
  for (int64_t row = 0; row < rows; row++, x += vocab, dx += vocab) {
    float by = -g[row] * cold, most = norms[2 * row], rest = norms[2 * row + 1];
    for (int64_t i = 0; i < vocab; i += WIDE)
      store(dx + i, exponential((load(x + i, vocab - i) - most) * cold - rest) * by, vocab - i);
    F at = load(dx + targets[row], 1);
    float p = exponential((load(x + targets[row], 1) - most) * cold - rest)[0];
    at[0] = g[row] * cold * (1.0f - p);
    store(dx + targets[row], at, 1);
  }
}

int64_t drawn(const float *x, float most, double total, float uniform, int64_t vocab, float cold) {
  if (!(total > 0 && total < __builtin_inf())) return -1;
  double aim = uniform * total, so_far = 0;
  for (int64_t i = 0; i < vocab; i += WIDE) {
    F some = odds(x, i, vocab, most, cold);
    double part = sum(some);
    if (so_far + part <= aim) {
      so_far += part;
      continue;
    }
    int64_t last = -1;
    for (int64_t j = 0; j < WIDE && so_far <= aim; j++) {
      if (some[j] > 0) last = i + j;
      so_far += some[j];
    }
    return last;
  }
  // Rounding has put the aim behind the last token that has any probability.
  int64_t i = vocab - 1;
  while (odds(x, i, i + 1, most, cold)[0] == 0) i--;
  return i;
}

void draw(const float *x, const float *uniform, int64_t *out, float *log_probs, int64_t rows, int64_t vocab, float cold) {
  for (int64_t row = 0; row < rows; row++, x += vocab) {
    float most = greatest(x, vocab);
    double total = 0;
    for (int64_t i = 0; i < vocab; i += WIDE) total += sum(odds(x, i, vocab, most, cold));
    out[row] = drawn(x, most, total, uniform[row], vocab, cold);
    log_probs[row] = out[row] < 0 ? 0 : (x[out[row]] - most) * cold - __builtin_logf((float)total);
  }
}

}  // namespace

#define C(T, p) ((const T *)p)
#define M(T, p) ((T *)p)

extern const Rows LEVEL = {
    [](bool wide, const void *x, const void *w, void *out, int64_t rows, int64_t d, float eps, bool plus_one) {
      wide ? rms(C(float, x), C(float, w), M(float, out), rows, d, eps, plus_one)
           : rms(C(bf16, x), C(bf16, w), M(bf16, out), rows, d, eps, plus_one);
    },
    [](bool wide, const void *g, const void *x, const void *w, void *dx, float *dw, int64_t rows, int64_t d, float eps, bool plus_one) {
      wide ? rms_back(C(float, g), C(float, x), C(float, w), M(float, dx), dw, rows, d, eps, plus_one)
           : rms_back(C(bf16, g), C(bf16, x), C(bf16, w), M(bf16, dx), dw, rows, d, eps, plus_one);
    },
    [](bool wide, const void *x, void *out, int64_t rows, int64_t d) {
      wide ? silu(C(float, x), M(float, out), rows, d) : silu(C(bf16, x), M(bf16, out), rows, d);
    },
    [](bool wide, const void *g, const void *x, void *dx, int64_t rows, int64_t d) {
      wide ? silu_back(C(float, g), C(float, x), M(float, dx), rows, d) : silu_back(C(bf16, g), C(bf16, x), M(bf16, dx), rows, d);
    },
    [](bool wide, const void *x, const void *cos, const void *sin, void *out, int64_t dims, int64_t head_dim, bool back) {
      wide ? turn(C(float, x), C(float, cos), C(float, sin), M(float, out), dims, head_dim, back)
           : turn(C(bf16, x), C(bf16, cos), C(bf16, sin), M(bf16, out), dims, head_dim, back);
    },
    [](bool wide, const void *q, const void *k, const void *v, const float *mask, void *out, float *room, int64_t queries, int64_t keys,
       int64_t head_dim, float scale, float cap) {
      wide ? attend(C(float, q), C(float, k), C(float, v), mask, M(float, out), room, queries, keys, head_dim, scale, cap)
           : attend(C(bf16, q), C(bf16, k), C(bf16, v), mask, M(bf16, out), room, queries, keys, head_dim, scale, cap);
    },
    [](bool wide, const Attention *a) { wide ? attention<float>(*a) : attention<bf16>(*a); },
    [](bool wide, const Attention *a) { wide ? attention_back<float>(*a) : attention_back<bf16>(*a); },
    [](bool wide, const void *x, const int64_t *targets, float *out, float *norms, int64_t rows, int64_t vocab, float cold) {
      wide ? chosen(C(float, x), targets, out, norms, rows, vocab, cold) : chosen(C(bf16, x), targets, out, norms, rows, vocab, cold);
    },
    [](bool wide, const void *x, const int64_t *targets, const float *norms, const float *g, void *dx, int64_t rows, int64_t vocab,
       float cold) {
      wide ? chosen_back(C(float, x), targets, norms, g, M(float, dx), rows, vocab, cold)
           : chosen_back(C(bf16, x), targets, norms, g, M(bf16, dx), rows, vocab, cold);
    },
    draw,
};
