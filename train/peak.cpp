#include "train/peak.h"

#include <algorithm>
#include <chrono>

#include "autograd/tensor.h"
#include "base/progress.h"
#include "kernels/convert.h"
#include "kernels/cpu/parallel.h"
#include "kernels/device.h"
#include "kernels/gemm.h"
#include "kernels/philox.h"
#include "train/config/resolve.h"

namespace rodimus {

using namespace cpu;
namespace {

using Clock = std::chrono::steady_clock;

// The shortest time of one call, measured over about a quarter of a second.
template <class F>
double best_seconds(F&& f) {
  double best = 1e30;
  const auto start = Clock::now();
  do {
    const auto begin = Clock::now();
    f();
    best = std::min(best, seconds_since(begin));
  } while (seconds_since(start) < 0.25);
  return best;
}

void triad(const Cpu& exec, float* a, const float* b, const float* c, int64_t n) {
  parallel_for(exec, n, kParallelGrain, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) a[i] = b[i] + 3.0f * c[i];
  });
}
// Like the CPU's triad, it reads two arrays and writes one.
[[maybe_unused]] void triad(Cuda& exec, float* a, const float* b, const float*, int64_t n) {
  accumulate(exec, a, b, n);
}

}  // namespace

double measure_gemm_gflops(Exec& exec, DType compute) {
  const Device device = device_of(exec);
  // Large enough that either device is limited by arithmetic alone.
  const int64_t size = device == Device::cuda ? 8192 : 1024;
  if (!has_native_bf16(device)) compute = DType::f32;
  Tensor values = Tensor::empty({size, size}, DType::f32, device);
  // Not zeros: with those a GPU draws less power and runs faster.
  on_device(exec, [&](auto& backend) {
    random_normal(backend, values.data<float>(), values.numel(), 1, /*seed=*/1, /*stream=*/0);
  });
  const Tensor a = convert_to(exec, values, compute);
  Tensor c = Tensor::empty({size, size}, compute, device);
  const double seconds = best_seconds([&] {
    dispatch(exec, compute, [&]<class T>(auto& backend) {
      gemm(backend, {.m = size, .n = size, .k = size, .transpose_b = true}, c.data<T>(),
           a.data<T>(), a.data<T>(), 0);
      wait(backend);
    });
  });
  return 2.0 * static_cast<double>(size * size * size) / seconds / 1e9;
}

double measure_triad_gb_per_s(Exec& exec, int64_t array_bytes) {
  const int64_t n = array_bytes / 4;
  Tensor a = zeros(exec, {n});
  const Tensor b = zeros(exec, {n}), c = zeros(exec, {n});
  const double seconds = best_seconds([&] {
    on_device(exec, [&](auto& backend) {
      triad(backend, a.data<float>(), b.data<float>(), c.data<float>(), n);
      wait(backend);
    });
  });
  return 12.0 * static_cast<double>(n) / seconds / 1e9;
}

}  // namespace rodimus
