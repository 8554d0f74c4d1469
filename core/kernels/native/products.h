// Products with weights that oneDNN has laid out for its kernels, and what is put before them.
#pragma once
#include "tensors.h"
#include <ATen/core/dispatch/Dispatcher.h>

namespace {

const std::optional<c10::OperatorHandle> &reordering() {
  static const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_reorder_linear_weight", ""});
  return found;
}

const std::optional<c10::OperatorHandle> &multiplying() {
  static const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  return found;
}

Tensor reordered(const Tensor &weight, int64_t rows) {
  std::vector<c10::IValue> stack{weight, c10::IValue(rows)};
  reordering()->callBoxed(&stack);
  return stack[0].toTensor();
}

// Whether this libtorch has such kernels, and for this CPU: which of them it refuses only trying tells.
bool lays_out() {
  static const bool does = [] {
    if (!reordering() || !multiplying()) return false;
    try {
      reordered(at::zeros({16, 16}, at::TensorOptions().dtype(at::kBFloat16)), 1);
      return true;
    } catch (const c10::Error &) {
      return false;
    }
  }();
  return does;
}

// An undefined tensor where there are no such kernels.
Tensor lay_out(const Tensor &weight, int64_t rows) { return lays_out() ? reordered(weight, rows) : Tensor(); }

Tensor product(const Tensor &x, const Tensor &laid_out, const Tensor &bias) {
  TORCH_CHECK(multiplying(), "no packed products here");
  TORCH_CHECK(!traced({x}), "weights that were laid out have no gradient");
  std::vector<c10::IValue> stack{x,
                                 laid_out,
                                 bias.defined() ? c10::IValue(bias) : c10::IValue(),
                                 c10::IValue(std::string("none")),
                                 c10::IValue(c10::List<std::optional<at::Scalar>>()),
                                 c10::IValue(std::string(""))};
  multiplying()->callBoxed(&stack);
  return stack[0].toTensor();
}

template <typename T>
void beside(const T *x, const T *inner, const float *gains, const int64_t *columns, T *out, int64_t rows, int64_t d, int64_t ranks) {
  for (int64_t row = 0; row < rows; row++, x += d, inner += ranks, out += d + ranks) {
    std::copy(x, x + d, out);
    for (int64_t j = 0; j < ranks; j++) out[d + j] = gains ? T(float(inner[j]) * gains[columns[j]]) : inner[j];
  }
}

Tensor beside(const Tensor &x, const Tensor &inner, const Tensor &gains, const Tensor &columns) {
  TORCH_CHECK(x.dim() > 1 && inner.dim() == x.dim() && x.scalar_type() == inner.scalar_type() &&
                  x.sizes().slice(0, x.dim() - 1) == inner.sizes().slice(0, x.dim() - 1),
              "numbers of ", inner.sizes(), " beside those of ", x.sizes());
  TORCH_CHECK(!traced({x, inner}), "numbers side by side have no gradient here");
  int64_t d = x.size(-1), ranks = inner.size(-1), batch = x.size(0), own = 0;
  const float *by = nullptr;
  const int64_t *which = nullptr;
  Tensor all = gains.defined() ? gains.contiguous() : gains;
  if (gains.defined()) {
    TORCH_CHECK(all.dim() == 2 && (all.size(0) == 1 || all.size(0) == batch) && all.scalar_type() == at::kFloat && columns.defined() &&
                    columns.numel() == ranks && columns.scalar_type() == at::kLong && columns.is_contiguous(),
                "gains of ", all.sizes(), " for ", inner.sizes());
    by = all.const_data_ptr<float>(), which = columns.const_data_ptr<int64_t>();
    for (int64_t j = 0; j < ranks; j++) TORCH_CHECK_INDEX(which[j] >= 0 && which[j] < all.size(1), "gain ", which[j], " of ", all.size(1));
    own = all.size(0) > 1 ? all.size(1) : 0;
  }
  auto size = x.sizes().vec();
  size.back() = d + ranks;
  Tensor out = same(x, size);
  int64_t each = batch && d ? x.numel() / batch / d : 0, bytes = x.element_size();
  bool is_wide = wide(x);
  const char *from = start(x), *added = start(inner);
  char *to = start(out);
  in_parallel(batch, grain(each * (d + ranks)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const char *a = from + i * each * d * bytes, *b = added + i * each * ranks * bytes;
      char *c = to + i * each * (d + ranks) * bytes;
      const float *g = by ? by + i * own : nullptr;
      is_wide ? beside((const float *)a, (const float *)b, g, which, (float *)c, each, d, ranks)
              : beside((const at::BFloat16 *)a, (const at::BFloat16 *)b, g, which, (at::BFloat16 *)c, each, d, ranks);
    }
  });
  return out;
}

}  // namespace
