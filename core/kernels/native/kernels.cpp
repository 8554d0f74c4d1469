// What the crate calls: the kernels on libtorch's tensors, with gradients. Inputs are on the CPU, in f32 or bf16.
#include "attended.h"
#include "heads.h"
#include "layers.h"
#include "products.h"
#include "tokens.h"
#include <cstring>

namespace {

Tensor given(const Tensor *t) { return t ? *t : Tensor(); }

// As an argument of a function with a gradient.
std::optional<Tensor> maybe(const Tensor &x) { return x.defined() ? std::make_optional(x) : std::nullopt; }

// Runs `work`; what it throws comes back as text, to be freed.
template <typename W> char *said(W work) {
  try {
    work();
    return nullptr;
  } catch (const c10::Error &e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception &e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("an unknown failure");
  }
}

}  // namespace

extern "C" {

bool motrain_fast() { return rows() != nullptr; }

char *motrain_rms(Tensor **out, const Tensor *x, const Tensor *weight, double eps, bool plus_one) {
  return said([&] {
    Tensor in = x->contiguous(), w = weight->contiguous();
    *out = new Tensor(traced({in, w}) ? Rms::apply(in, w, eps, plus_one) : rms(in, w, eps, plus_one));
  });
}

char *motrain_silu(Tensor **out, const Tensor *x) {
  return said([&] {
    Tensor in = x->contiguous();
    *out = new Tensor(traced({in}) ? Silu::apply(in) : gated(in));
  });
}

char *motrain_split(Tensor **out, const Tensor *x, const Tensor *cos, const Tensor *sin, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return said([&] {
    Tensor in = x->contiguous(), c = given(cos), s = given(sin);
    auto parts = traced({in}) ? Split::apply(in, maybe(c), maybe(s), heads, kv_heads, head_dim) : split(in, c, s, {heads, kv_heads, head_dim});
    for (int i = 0; i < 3; i++) out[i] = new Tensor(parts[i]);
  });
}

char *motrain_attention(Tensor **out, const Tensor *q, const Tensor *k, const Tensor *v, const Tensor *mask, double scale, double cap) {
  return said([&] {
    // Keys and values may be the first positions of longer ones.
    auto dense = [](const Tensor &x) { return x.stride(3) == 1 && x.stride(2) == x.size(3) ? x : x.contiguous(); };
    Tensor m = mask ? mask->to(at::kFloat).contiguous() : Tensor(), in = q->contiguous();
    if (traced({in, *k, *v})) {
      *out = new Tensor(Attended::apply(in, k->contiguous(), v->contiguous(), maybe(m), scale, cap));
    } else {
      *out = new Tensor(attention(in, dense(*k), dense(*v), m, scale, cap));
    }
  });
}

char *motrain_chosen(Tensor **out, const Tensor *logits, const Tensor *targets, double temperature) {
  return said([&] {
    Tensor x = logits->contiguous(), t = targets->contiguous();
    *out = new Tensor(traced({x}) ? Chosen::apply(x, t, temperature) : chosen(x, t, temperature)[0]);
  });
}

int64_t motrain_threads() {
  std::atomic<int64_t> parts{0};
  in_parallel(at::get_num_threads(), 1, [&](int64_t, int64_t) { parts++; });
  return parts;
}

char *motrain_draw(Tensor **out, const Tensor *logits, const Tensor *uniform, double temperature) {
  return said([&] {
    auto [tokens, log_probs] = draw(logits->contiguous(), uniform->contiguous(), temperature);
    out[0] = new Tensor(tokens), out[1] = new Tensor(log_probs);
  });
}

char *motrain_lay_out(Tensor **out, const Tensor *weight, int64_t rows) {
  return said([&] {
    Tensor laid_out = lay_out(*weight, rows);
    *out = laid_out.defined() ? new Tensor(laid_out) : nullptr;
  });
}

char *motrain_beside(Tensor **out, const Tensor *x, const Tensor *inner, const Tensor *gains, const Tensor *columns) {
  return said([&] { *out = new Tensor(beside(x->contiguous(), inner->contiguous(), given(gains), given(columns))); });
}

char *motrain_product(Tensor **out, const Tensor *x, const Tensor *laid_out, const Tensor *bias) {
  return said([&] { *out = new Tensor(product(*x, *laid_out, given(bias))); });
}
}
