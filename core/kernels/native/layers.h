// Norms and gated MLPs, forwards and backwards.
#pragma once
#include "tensors.h"

namespace {

Tensor rms(const Tensor &x, const Tensor &weight, double eps, bool plus_one) {
  TORCH_CHECK(weight.dim() == 1 && x.dim() > 0 && x.size(-1) == weight.size(0) && x.scalar_type() == weight.scalar_type(), "a norm of ",
              x.sizes(), " with weights ", weight.sizes());
  bool is_wide = wide(x);
  int64_t d = x.size(-1), count = d ? x.numel() / d : 0, bytes = d * x.element_size();
  Tensor out = same(x, x.sizes());
  const char *from = start(x), *w = start(weight);
  char *to = start(out);
  in_parallel(count, grain(d), [&](int64_t begin, int64_t end) {
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
    in_parallel(parts, std::max<int64_t>(1, grain(d * each)), [&](int64_t begin, int64_t end) {
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
  in_parallel(count, grain(2 * d), [&](int64_t begin, int64_t end) {
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
    in_parallel(count, grain(4 * d), [&](int64_t begin, int64_t end) {
      rows()->silu_back(is_wide, own + begin * bytes, from + 2 * begin * bytes, to + 2 * begin * bytes, end - begin, d);
    });
    return {dx};
  }
};

}  // namespace
