// Products with weights that oneDNN has laid out for its kernels.
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

const std::optional<c10::OperatorHandle> &adding() {
  static const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", "binary"});
  return found;
}

// An undefined tensor where this libtorch has no such kernels.
Tensor lay_out(const Tensor &weight, int64_t rows) {
  if (!reordering() || !multiplying() || !adding()) return Tensor();
  std::vector<c10::IValue> stack{weight, c10::IValue(rows)};
  reordering()->callBoxed(&stack);
  return stack[0].toTensor();
}

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

Tensor product_onto(const Tensor &onto, const Tensor &x, const Tensor &laid_out) {
  TORCH_CHECK(adding(), "no packed products here");
  TORCH_CHECK(!traced({x, onto}), "weights that were laid out have no gradient");
  std::vector<c10::IValue> stack{x, onto, laid_out, c10::IValue(), c10::IValue(std::string("add"))};
  adding()->callBoxed(&stack);
  return stack[0].toTensor();
}

}  // namespace
