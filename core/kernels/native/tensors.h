// What all kernels need of libtorch's tensors, and the table of the best level that the CPU has.
#pragma once
#include "rows.h"
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <array>
#include <atomic>
#include <exception>
#include <optional>
#include <string>
#include <torch/csrc/autograd/custom_function.h>
#include <vector>

#if defined(HAS_GOMP)
// libtorch's OpenMP library, by name: compilers speak to different ones, and two in a process take each other's processors.
extern "C" {
void GOMP_parallel(void (*one)(void *), void *data, unsigned threads, unsigned flags);
int omp_get_thread_num();
int omp_get_num_threads();
}
#endif

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// No more than libtorch's own kernels use, which ATEN_CPU_CAPABILITY may limit.
const Rows *rows() {
#if defined(__x86_64__)
  static const Rows *best = []() -> const Rows * {
    __builtin_cpu_init();
    std::string level = at::get_cpu_capability();
    if (level == "AVX512" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
      return &rows_avx512;
    bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return has && (level == "AVX512" || level == "AVX2") ? &rows_avx2 : nullptr;
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

// Runs `f(begin, end)` on parts of `count` that are at least `grain` long, on all threads. `at::parallel_for` does so only where the compiler's OpenMP
// library is libtorch's.
template <typename F> void in_parallel(int64_t count, int64_t grain, const F &f) {
#if defined(HAS_GOMP)
  if (count > grain && at::get_num_threads() > 1 && !at::in_parallel_region()) {
    struct Task {
      const F &f;
      int64_t count, grain;
      std::atomic<bool> failed{false};
      std::exception_ptr why{};
    } task{f, count, grain};
    auto one = [](void *data) {
      Task &task = *static_cast<Task *>(data);
      int64_t parts = std::min<int64_t>(omp_get_num_threads(), (task.count + task.grain - 1) / task.grain);
      int64_t each = (task.count + parts - 1) / parts, begin = omp_get_thread_num() * each;
      try {
        if (begin < task.count) task.f(begin, std::min(task.count, begin + each));
      } catch (...) {
        if (!task.failed.exchange(true)) task.why = std::current_exception();
      }
    };
    // A number of threads of its own would end and begin threads each time.
    GOMP_parallel(one, &task, 0, 0);
    if (task.failed) std::rethrow_exception(task.why);
    return;
  }
#endif
  if (count > 0) f(0, count);
}

bool traced(std::initializer_list<Tensor> inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (auto &x : inputs)
    if (x.defined() && x.requires_grad()) return true;
  return false;
}

}  // namespace
