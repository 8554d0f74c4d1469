// Queries, keys and values out of one matrix's product, at their positions.
#pragma once
#include "tensors.h"
#include <cstring>

namespace {

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
  in_parallel(batch * length, grain(all * h.head_dim), [&](int64_t begin, int64_t end) {
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

}  // namespace
