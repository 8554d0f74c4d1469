// Log-probs of targets, and the drawing of tokens.
#pragma once
#include "tensors.h"

namespace {

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
  in_parallel(count, grain(vocab), [&](int64_t begin, int64_t end) {
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
    in_parallel(x.size(0), grain(vocab), [&](int64_t begin, int64_t end) {
      rows()->chosen_back(is_wide, from + begin * bytes, which + begin, sums + 2 * begin, own + begin, to + begin * bytes, end - begin, vocab, cold);
    });
    return {dx, Tensor(), Tensor()};
  }
};

std::array<Tensor, 2> draw(const Tensor &x, const Tensor &uniform, double temperature) {
  TORCH_CHECK(x.dim() == 2 && x.scalar_type() == at::kFloat && uniform.scalar_type() == at::kFloat && uniform.numel() == x.size(0) &&
                  x.size(1) > 0 && uniform.is_contiguous(),
              "logits of ", x.sizes());
  Tensor out = at::empty({x.size(0)}, at::TensorOptions().dtype(at::kLong)), log_probs = f32({x.size(0)});
  int64_t vocab = x.size(1);
  const float *from = x.const_data_ptr<float>(), *own = uniform.const_data_ptr<float>();
  int64_t *to = out.mutable_data_ptr<int64_t>();
  float *sure = log_probs.mutable_data_ptr<float>();
  in_parallel(x.size(0), grain(vocab), [&](int64_t begin, int64_t end) {
    rows()->draw(from + begin * vocab, own + begin, to + begin, sure + begin, end - begin, vocab, 1.0 / temperature);
  });
  return {out, log_probs};
}

}  // namespace
