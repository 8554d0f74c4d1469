// Attention, sequence by sequence and key-value head by key-value head.
#pragma once
#include "tensors.h"
#include <functional>

namespace {

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
  in_parallel(batch * kv, grain(q.size(1) / kv * queries * keys * q.size(3)), [&](int64_t begin, int64_t end) {
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

}  // namespace
