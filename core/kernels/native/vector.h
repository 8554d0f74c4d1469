// As many numbers at a time as a register of the level holds, in f32: of wider vectors GCC makes copies in memory at every operation.
#pragma once
#include <stdint.h>

namespace {

#ifdef __AVX512F__
constexpr int64_t WIDE = 16;
#else
constexpr int64_t WIDE = 8;
#endif

typedef float F4 __attribute__((vector_size(16)));
typedef float F8 __attribute__((vector_size(32)));
typedef float F __attribute__((vector_size(4 * WIDE)));
typedef int32_t I __attribute__((vector_size(4 * WIDE)));
typedef uint32_t U __attribute__((vector_size(4 * WIDE)));
typedef uint16_t H __attribute__((vector_size(2 * WIDE)));
typedef F LooseF __attribute__((aligned(4), may_alias));
typedef H LooseH __attribute__((aligned(2), may_alias));

struct bf16 {
  uint16_t bits;
};

#define INLINE static inline __attribute__((always_inline))

INLINE F all(float x) { return x - F{}; }

INLINE F choose(I where, F yes, F no) { return (F)((where & (I)yes) | (~where & (I)no)); }

INLINE F widened(H h) { return (F)(__builtin_convertvector(h, U) << 16); }

// To the nearest, ties to even; a NaN stays one.
INLINE H narrowed(F x) {
  U bits = (U)x;
  U near = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  U nan = (U)(x != x);
  return __builtin_convertvector((nan & 0x7fc0) | (~nan & near), H);
}

INLINE F load(const float *p) { return *(const LooseF *)p; }
INLINE F load(const bf16 *p) { return widened(*(const LooseH *)p); }
INLINE void store(float *p, F x) { *(LooseF *)p = x; }
INLINE void store(bf16 *p, F x) { *(LooseH *)p = narrowed(x); }

// The first `n` numbers, and `rest` in place of those that are not there.
template <typename T> INLINE F load(const T *p, int64_t n, float rest = 0.0f) {
  if (n >= WIDE) return load(p);
  T some[WIDE] = {};
  for (int64_t i = 0; i < n; i++) some[i] = p[i];
  F x = load(some);
  for (int64_t i = n; i < WIDE; i++) x[i] = rest;
  return x;
}

template <typename T> INLINE void store(T *p, F x, int64_t n) {
  if (n >= WIDE) return store(p, x);
  T rest[WIDE];
  store(rest, x);
  for (int64_t i = 0; i < n; i++) p[i] = rest[i];
}

// As the type holds it.
INLINE F rounded(const float *, F x) { return x; }
INLINE F rounded(const bf16 *, F x) { return widened(narrowed(x)); }

INLINE float sum(F4 x) {
  x += __builtin_shufflevector(x, x, 2, 3, 0, 1);
  x += __builtin_shufflevector(x, x, 1, 0, 3, 2);
  return x[0];
}

INLINE float sum(F8 x) { return sum(__builtin_shufflevector(x, x, 0, 1, 2, 3) + __builtin_shufflevector(x, x, 4, 5, 6, 7)); }

#ifdef __AVX512F__
INLINE float sum(F x) {
  return sum(__builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15));
}
#endif

constexpr float NOTHING = -__builtin_inff();

// The greater one; a NaN wins.
INLINE F greater(F a, F b) { return choose((a > b) | (a != a), a, b); }

INLINE float greatest(F x) {
  float top = x[0];
  for (int64_t i = 1; i < WIDE; i++) top = (x[i] > top || x[i] != x[i]) ? x[i] : top;
  return top;
}

// Of `n` numbers; a NaN is greater than all others.
template <typename T> INLINE float greatest(const T *x, int64_t n) {
  F top = all(NOTHING);
  for (int64_t i = 0; i < n; i += WIDE) top = greater(load(x + i, n - i, NOTHING), top);
  return greatest(top);
}

// e^x up to 88 (within 1e-7 of itself), and as at 88 from there on; 0 below -87.3, as for -inf. A NaN stays one.
INLINE F exponential(F x) {
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  F top = choose(x > 88.0f, all(88.0f), x);
  F whole = (top * 1.44269504f + shift) - shift;
  F r = top - whole * 0.693359375f + whole * 2.12194440e-4f;
  F p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  F scale = (F)((__builtin_convertvector(whole, I) + 127) << 23);
  return choose(x < -87.3f, F{}, p * scale);
}

INLINE F sigmoid(F x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace
