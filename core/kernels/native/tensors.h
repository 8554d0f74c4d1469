// What all kernels need of libtorch's tensors, and the table of the best level that the CPU has.
#pragma once
#include "rows.h"
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <array>
#include <optional>
#include <torch/csrc/autograd/custom_function.h>
#include <vector>

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

const Rows *rows() {
#if defined(__x86_64__)
  static const Rows *best = []() -> const Rows * {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
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

}  // namespace
