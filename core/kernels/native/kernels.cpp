// The kernels on libtorch's tensors: shapes, threads and gradients. Inputs are on the CPU, in f32 or bf16.
#include "rows.h"
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <cstring>
#include <torch/csrc/autograd/custom_function.h>
#include <vector>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

const Rows *rows() {
#if defined(__x86_64__)
  static const Rows *best = []() -> const Rows * {
    __builtin_cpu_init();
    auto has = [](bool feature) { return feature; };
    if (has(__builtin_cpu_supports("avx512f")) && has(__builtin_cpu_supports("avx512bw")) && has(__builtin_cpu_supports("avx512vl")) &&
        has(__builtin_cpu_supports("avx512dq")))
      return &rows_avx512;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &rows_avx2 : nullptr;
  }();
  return best;
#else
  return nullptr;
#endif
}

bool wide(const Tensor &x) {
  TORCH_CHECK(x.device().is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16), "neither f32 nor bf16 on a CPU");
  return x.scalar_type() == at::kFloat;
}

Tensor same(const Tensor &x, at::IntArrayRef size) { return at::empty(size, x.options().requires_grad(false)); }

Tensor f32(at::IntArrayRef size) { return at::empty(size, at::TensorOptions().dtype(at::kFloat)); }

const char *start(const Tensor &x) { return static_cast<const char *>(x.const_data_ptr()); }

char *start(Tensor &x) { return static_cast<char *>(x.mutable_data_ptr()); }

// Numbers of a row below which another thread does not pay.
int64_t grain(int64_t numbers) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, numbers)); }

bool traced(std::initializer_list<Tensor> inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (auto &x : inputs)
    if (x.defined() && x.requires_grad()) return true;
  return false;
}

// Norms.

Tensor rms(const Tensor &x, const Tensor &weight, double eps, bool plus_one) {
  TORCH_CHECK(weight.dim() == 1 && x.dim() > 0 && x.size(-1) == weight.size(0) && x.scalar_type() == weight.scalar_type(), "a norm of ",
              x.sizes(), " with weights ", weight.sizes());
  bool is_wide = wide(x);
  int64_t d = x.size(-1), count = d ? x.numel() / d : 0, bytes = d * x.element_size();
  Tensor out = same(x, x.sizes());
  const char *from = start(x), *w = start(weight);
  char *to = start(out);
  at::parallel_for(0, count, grain(d), [&](int64_t begin, int64_t end) {
    rows()->rms(is_wide, from + begin * bytes, w, to + begin * bytes, end - begin, d, eps, plus_one);
  });
  return out;
}

struct Rms : Function<Rms> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &weight, double eps, bool plus_one) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["plus_one"] = plus_one;
    return rms(x, weight, eps, plus_one);
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    Tensor x = saved[0], weight = saved[1], g = grads[0].contiguous();
    double eps = ctx->saved_data["eps"].toDouble();
    bool plus_one = ctx->saved_data["plus_one"].toBool(), is_wide = wide(x);
    int64_t d = x.size(-1), count = d ? x.numel() / d : 0, bytes = d * x.element_size();
    // A sum for each fixed part of the rows, so that it does not depend on which thread does which.
    int64_t parts = std::min<int64_t>(std::max<int64_t>(count, 1), 16), each = (count + parts - 1) / parts;
    Tensor dx = same(x, x.sizes()), dw = at::zeros({parts, d}, at::TensorOptions().dtype(at::kFloat));
    const char *own = start(g), *from = start(x), *w = start(weight);
    char *to = start(dx);
    float *sums = dw.mutable_data_ptr<float>();
    at::parallel_for(0, parts, std::max<int64_t>(1, grain(d * each)), [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; part++) {
        int64_t first = part * each, some = std::min(each, count - first);
        if (some > 0)
          rows()->rms_back(is_wide, own + first * bytes, from + first * bytes, w, to + first * bytes, sums + part * d, some, d, eps,
                           plus_one);
      }
    });
    Tensor of_weight = weight.requires_grad() ? dw.sum(0).to(weight.scalar_type()) : Tensor();
    return {dx, of_weight, Tensor(), Tensor()};
  }
};

// Gated MLPs.

Tensor gated(const Tensor &x) {
  TORCH_CHECK(x.dim() > 0 && x.size(-1) % 2 == 0, "two halves of ", x.sizes());
  bool is_wide = wide(x);
  auto size = x.sizes().vec();
  int64_t d = size.back() /= 2, count = d ? x.numel() / (2 * d) : 0, bytes = d * x.element_size();
  Tensor out = same(x, size);
  const char *from = start(x);
  char *to = start(out);
  at::parallel_for(0, count, grain(2 * d), [&](int64_t begin, int64_t end) {
    rows()->silu(is_wide, from + 2 * begin * bytes, to + begin * bytes, end - begin, d);
  });
  return out;
}

struct Silu : Function<Silu> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x) {
    ctx->save_for_backward({x});
    return gated(x);
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    Tensor x = ctx->get_saved_variables()[0], g = grads[0].contiguous(), dx = same(x, x.sizes());
    bool is_wide = wide(x);
    int64_t d = x.size(-1) / 2, count = d ? x.numel() / (2 * d) : 0, bytes = d * x.element_size();
    const char *own = start(g), *from = start(x);
    char *to = start(dx);
    at::parallel_for(0, count, grain(4 * d), [&](int64_t begin, int64_t end) {
      rows()->silu_back(is_wide, own + begin * bytes, from + 2 * begin * bytes, to + 2 * begin * bytes, end - begin, d);
    });
    return {dx};
  }
};

// Heads.

struct Heads {
  int64_t heads, kv_heads, head_dim;
};

// Between `[batch, length, (heads + 2 kv_heads) head_dim]` and queries, keys and values, `[batch, …heads, length, head_dim]`: what is turned
// on the way there is turned back on the way back.
void move_heads(char *packed, char *const parts[3], int64_t batch, int64_t length, Heads h, const Tensor &cos, const Tensor &sin,
                bool is_wide, int64_t size, bool back) {
  int64_t all = h.heads + 2 * h.kv_heads, bytes = h.head_dim * size, dims = cos.defined() ? cos.size(-1) : 0;
  const char *c = dims ? start(cos) : nullptr, *s = dims ? start(sin) : nullptr;
  int64_t alike = dims && cos.size(0) == 1 ? 0 : length;
  at::parallel_for(0, batch * length, grain(all * h.head_dim), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; token++) {
      int64_t row = token / length, at = token % length, angle = (row * alike + at) * dims * size;
      for (int64_t head = 0; head < all; head++) {
        int which = head < h.heads ? 0 : head < h.heads + h.kv_heads ? 1 : 2;
        int64_t own = which == 0 ? head : which == 1 ? head - h.heads : head - h.heads - h.kv_heads;
        int64_t count = which == 0 ? h.heads : h.kv_heads;
        char *there = parts[which] + ((row * count + own) * length + at) * bytes, *here = packed + (token * all + head) * bytes;
        if (which < 2 && dims)
          rows()->turn(is_wide, back ? there : here, c + angle, s + angle, back ? here : there, dims, h.head_dim, back);
        else
          std::memcpy(back ? here : there, back ? there : here, bytes);
      }
    }
  });
}

std::vector<Tensor> split(const Tensor &x, const Tensor &cos, const Tensor &sin, Heads h) {
  TORCH_CHECK(x.dim() == 3 && x.size(2) == (h.heads + 2 * h.kv_heads) * h.head_dim, "heads of ", x.sizes());
  int64_t batch = x.size(0), length = x.size(1);
  if (cos.defined())
    TORCH_CHECK(cos.dim() == 4 && cos.sizes() == sin.sizes() && cos.is_contiguous() && sin.is_contiguous() &&
                    cos.scalar_type() == x.scalar_type() && (cos.size(0) == 1 || cos.size(0) == batch) && cos.size(1) == 1 &&
                    cos.size(2) == length && cos.size(3) <= h.head_dim && cos.size(3) % 2 == 0,
                "angles of ", cos.sizes(), " for ", x.sizes());
  Tensor q = same(x, {batch, h.heads, length, h.head_dim}), k = same(x, {batch, h.kv_heads, length, h.head_dim});
  Tensor v = same(x, k.sizes());
  char *const parts[3] = {start(q), start(k), start(v)};
  move_heads(const_cast<char *>(start(x)), parts, batch, length, h, cos, sin, wide(x), x.element_size(), false);
  return {q, k, v};
}

struct Split : Function<Split> {
  static variable_list forward(AutogradContext *ctx, const Tensor &x, std::optional<Tensor> angles_cos, std::optional<Tensor> angles_sin,
                               int64_t heads, int64_t kv_heads, int64_t head_dim) {
    Tensor cos = angles_cos.value_or(Tensor()), sin = angles_sin.value_or(Tensor());
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["sizes"] = std::vector<int64_t>{x.size(0), x.size(1), heads, kv_heads, head_dim};
    return split(x, cos, sin, {heads, kv_heads, head_dim});
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto sizes = ctx->saved_data["sizes"].toIntVector();
    int64_t batch = sizes[0], length = sizes[1];
    Heads h{sizes[2], sizes[3], sizes[4]};
    Tensor like;
    for (auto &g : grads)
      if (g.defined()) like = g;
    for (int i = 0; i < 3; i++)
      grads[i] = grads[i].defined() ? grads[i].contiguous()
                                    : at::zeros({batch, i ? h.kv_heads : h.heads, length, h.head_dim}, like.options().requires_grad(false));
    Tensor dx = same(like, {batch, length, (h.heads + 2 * h.kv_heads) * h.head_dim});
    char *const parts[3] = {const_cast<char *>(start(std::as_const(grads[0]))), const_cast<char *>(start(std::as_const(grads[1]))),
                            const_cast<char *>(start(std::as_const(grads[2])))};
    move_heads(start(dx), parts, batch, length, h, saved[0], saved[1], wide(dx), dx.element_size(), true);
    return {dx, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

// Attention.

void each_sequence(const Tensor &q, const Tensor &k, const Tensor &mask, double scale, double cap, bool back,
                   const std::function<void(Attention &, int64_t batch, int64_t head)> &one) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && q.size(0) == k.size(0) && q.size(3) == k.size(3) && q.size(1) % k.size(1) == 0 &&
                  q.size(2) <= k.size(2),
              "attention of ", q.sizes(), " over ", k.sizes());
  int64_t batch = q.size(0), kv = k.size(1), queries = q.size(2), keys = k.size(2);
  if (mask.defined())
    TORCH_CHECK(mask.dim() == 4 && mask.scalar_type() == at::kFloat && mask.is_contiguous() && mask.size(1) == 1 &&
                    mask.size(2) == queries && mask.size(3) == keys && (mask.size(0) == 1 || mask.size(0) == batch),
                "a mask of ", mask.sizes());
  int64_t one_mask = mask.defined() && mask.size(0) > 1 ? queries * keys : 0;
  const float *seen = mask.defined() ? mask.const_data_ptr<float>() : nullptr;
  at::parallel_for(0, batch * kv, 1, [&](int64_t begin, int64_t end) {
    Attention a{};
    a.group = q.size(1) / kv, a.queries = queries, a.keys = keys, a.head_dim = q.size(3), a.stride = q.size(1) * q.size(3);
    a.scale = scale, a.cap = cap;
    std::vector<float> room(attention_room(a, back));
    for (int64_t i = begin; i < end; i++) {
      a.mask = seen ? seen + i / kv * one_mask : nullptr;
      a.room = room.data();
      one(a, i / kv, i % kv);
    }
  });
}

int64_t offset(const Attention &a, const Tensor &q, int64_t batch, int64_t head) {
  return (batch * q.size(1) + head * a.group) * a.queries * a.head_dim * q.element_size();
}

int64_t offset(const Tensor &k, int64_t batch, int64_t head) { return (batch * k.stride(0) + head * k.stride(1)) * k.element_size(); }

// Of `[batch, queries, heads * head_dim]`.
int64_t place(const Attention &a, const Tensor &q, int64_t batch, int64_t head) {
  return (batch * a.queries * a.stride + head * a.group * a.head_dim) * q.element_size();
}

Tensor attention(const Tensor &q, const Tensor &k, const Tensor &v, const Tensor &mask, double scale, double cap) {
  Tensor out = same(q, {q.size(0), q.size(2), q.size(1) * q.size(3)});
  bool is_wide = wide(q), single = q.size(2) == 1;
  const char *from[3] = {start(q), start(k), start(v)};
  char *to = start(out);
  each_sequence(q, k, mask, scale, cap, false, [&](Attention &a, int64_t batch, int64_t head) {
    a.q = from[0] + offset(a, q, batch, head);
    a.k = from[1] + offset(k, batch, head);
    a.v = from[2] + offset(v, batch, head);
    a.out = to + place(a, q, batch, head);
    if (single)
      rows()->attend(is_wide, a.q, a.k, a.v, a.mask, a.out, a.room, a.group, a.keys, a.head_dim, scale, cap);
    else
      rows()->attention(is_wide, &a);
  });
  return out;
}

struct Attended : Function<Attended> {
  static Tensor forward(AutogradContext *ctx, const Tensor &q, const Tensor &k, const Tensor &v, std::optional<Tensor> added, double scale,
                        double cap) {
    Tensor mask = added.value_or(Tensor());
    ctx->save_for_backward({q, k, v, mask});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["cap"] = cap;
    return attention(q, k, v, mask, scale, cap);
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    Tensor q = saved[0], k = saved[1], v = saved[2], mask = saved[3], g = grads[0].contiguous();
    double scale = ctx->saved_data["scale"].toDouble(), cap = ctx->saved_data["cap"].toDouble();
    Tensor dq = same(q, q.sizes()), dk = same(k, k.sizes()), dv = same(v, v.sizes());
    bool is_wide = wide(q);
    const char *from[4] = {start(q), start(k), start(v), start(g)};
    char *to[3] = {start(dq), start(dk), start(dv)};
    each_sequence(q, k, mask, scale, cap, true, [&](Attention &a, int64_t batch, int64_t head) {
      int64_t at = offset(a, q, batch, head), key = offset(k, batch, head);
      a.q = from[0] + at, a.k = from[1] + key, a.v = from[2] + offset(v, batch, head), a.g = from[3] + place(a, q, batch, head);
      a.dq = to[0] + at, a.dk = to[1] + key, a.dv = to[2] + key;
      rows()->attention_back(is_wide, &a);
    });
    return {dq, dk, dv, Tensor(), Tensor(), Tensor()};
  }
};

// Log-probs.

std::vector<Tensor> chosen(const Tensor &x, const Tensor &targets, double temperature) {
  TORCH_CHECK(x.dim() == 2 && targets.dim() == 1 && targets.size(0) == x.size(0) && targets.scalar_type() == at::kLong &&
                  targets.is_contiguous() && x.size(1) > 0,
              "targets ", targets.sizes(), " of ", x.sizes());
  int64_t count = x.size(0), vocab = x.size(1), bytes = vocab * x.element_size();
  const int64_t *which = targets.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; i++) TORCH_CHECK_INDEX(which[i] >= 0 && which[i] < vocab, "token ", which[i], " of ", vocab);
  Tensor out = f32({count}), norms = f32({count, 2});
  bool is_wide = wide(x);
  const char *from = start(x);
  float *to = out.mutable_data_ptr<float>(), *own = norms.mutable_data_ptr<float>();
  at::parallel_for(0, count, grain(vocab), [&](int64_t begin, int64_t end) {
    rows()->chosen(is_wide, from + begin * bytes, which + begin, to + begin, own + 2 * begin, end - begin, vocab, 1.0 / temperature);
  });
  return {out, norms};
}

struct Chosen : Function<Chosen> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &targets, double temperature) {
    auto both = chosen(x, targets, temperature);
    ctx->save_for_backward({x, targets, both[1]});
    ctx->saved_data["temperature"] = temperature;
    return both[0];
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    Tensor x = saved[0], targets = saved[1], norms = saved[2], g = grads[0].contiguous(), dx = same(x, x.sizes());
    double cold = 1.0 / ctx->saved_data["temperature"].toDouble();
    int64_t vocab = x.size(1), bytes = vocab * x.element_size();
    bool is_wide = wide(x);
    const char *from = start(x);
    char *to = start(dx);
    const int64_t *which = targets.const_data_ptr<int64_t>();
    const float *sums = norms.const_data_ptr<float>(), *own = g.const_data_ptr<float>();
    at::parallel_for(0, x.size(0), grain(vocab), [&](int64_t begin, int64_t end) {
      rows()->chosen_back(is_wide, from + begin * bytes, which + begin, sums + 2 * begin, own + begin, to + begin * bytes, end - begin, vocab, cold);
    });
    return {dx, Tensor(), Tensor()};
  }
};

Tensor draw(const Tensor &x, const Tensor &uniform, double temperature) {
  TORCH_CHECK(x.dim() == 2 && x.scalar_type() == at::kFloat && uniform.scalar_type() == at::kFloat && uniform.numel() == x.size(0) &&
                  x.size(1) > 0 && uniform.is_contiguous(),
              "logits of ", x.sizes());
  Tensor out = at::empty({x.size(0)}, at::TensorOptions().dtype(at::kLong));
  int64_t vocab = x.size(1);
  const float *from = x.const_data_ptr<float>(), *own = uniform.const_data_ptr<float>();
  int64_t *to = out.mutable_data_ptr<int64_t>();
  at::parallel_for(0, x.size(0), grain(vocab), [&](int64_t begin, int64_t end) {
    rows()->draw(from + begin * vocab, own + begin, to + begin, end - begin, vocab, 1.0 / temperature);
  });
  return out;
}

// Products with weights that oneDNN has laid out for its kernels.

const c10::OperatorHandle *operation(const char *name) {
  auto found = c10::Dispatcher::singleton().findSchema({name, ""});
  return found ? new c10::OperatorHandle(*found) : nullptr;
}

Tensor lay_out(const Tensor &weight, int64_t rows) {
  static const c10::OperatorHandle *reorder = operation("mkldnn::_reorder_linear_weight");
  if (!reorder || !operation("mkldnn::_linear_pointwise")) return Tensor();
  std::vector<c10::IValue> stack{weight, c10::IValue(rows)};
  reorder->callBoxed(&stack);
  return stack[0].toTensor();
}

Tensor product(const Tensor &x, const Tensor &laid_out, const Tensor &bias) {
  static const c10::OperatorHandle *linear = operation("mkldnn::_linear_pointwise");
  TORCH_CHECK(linear, "no packed products here");
  TORCH_CHECK(!traced({x}), "weights that were laid out have no gradient");
  std::vector<c10::IValue> stack{x,
                                 laid_out,
                                 bias.defined() ? c10::IValue(bias) : c10::IValue(),
                                 c10::IValue(std::string("none")),
                                 c10::IValue(c10::List<std::optional<at::Scalar>>()),
                                 c10::IValue(std::string(""))};
  linear->callBoxed(&stack);
  return stack[0].toTensor();
}

Tensor given(const Tensor *t) { return t ? *t : Tensor(); }

// As an argument of a function with a gradient.
std::optional<Tensor> maybe(const Tensor &x) { return x.defined() ? std::make_optional(x) : std::nullopt; }

Tensor flat(const Tensor &x) { return x.contiguous(); }

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
    Tensor in = flat(*x), w = flat(*weight);
    *out = new Tensor(traced({in, w}) ? Rms::apply(in, w, eps, plus_one) : rms(in, w, eps, plus_one));
  });
}

char *motrain_silu(Tensor **out, const Tensor *x) {
  return said([&] {
    Tensor in = flat(*x);
    *out = new Tensor(traced({in}) ? Silu::apply(in) : gated(in));
  });
}

char *motrain_split(Tensor **out, const Tensor *x, const Tensor *cos, const Tensor *sin, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return said([&] {
    Tensor in = flat(*x), c = given(cos), s = given(sin);
    auto parts = traced({in}) ? Split::apply(in, maybe(c), maybe(s), heads, kv_heads, head_dim) : split(in, c, s, {heads, kv_heads, head_dim});
    for (int i = 0; i < 3; i++) out[i] = new Tensor(parts[i]);
  });
}

char *motrain_attention(Tensor **out, const Tensor *q, const Tensor *k, const Tensor *v, const Tensor *mask, double scale, double cap) {
  return said([&] {
    // Keys and values may be the first positions of longer ones.
    auto dense = [](const Tensor &x) { return x.stride(3) == 1 && x.stride(2) == x.size(3) ? x : x.contiguous(); };
    Tensor m = mask ? mask->to(at::kFloat).contiguous() : Tensor(), in = flat(*q);
    if (traced({in, *k, *v})) {
      *out = new Tensor(Attended::apply(in, flat(*k), flat(*v), maybe(m), scale, cap));
    } else {
      *out = new Tensor(attention(in, dense(*k), dense(*v), m, scale, cap));
    }
  });
}

char *motrain_chosen(Tensor **out, const Tensor *logits, const Tensor *targets, double temperature) {
  return said([&] {
    Tensor x = flat(*logits), t = flat(*targets);
    *out = new Tensor(traced({x}) ? Chosen::apply(x, t, temperature) : chosen(x, t, temperature)[0]);
  });
}

char *motrain_draw(Tensor **out, const Tensor *logits, const Tensor *uniform, double temperature) {
  return said([&] { *out = new Tensor(draw(flat(*logits), flat(*uniform), temperature)); });
}

char *motrain_lay_out(Tensor **out, const Tensor *weight, int64_t rows) {
  return said([&] {
    Tensor laid_out = lay_out(*weight, rows);
    *out = laid_out.defined() ? new Tensor(laid_out) : nullptr;
  });
}

char *motrain_product(Tensor **out, const Tensor *x, const Tensor *laid_out, const Tensor *bias) {
  return said([&] { *out = new Tensor(product(*x, *laid_out, given(bias))); });
}
}
