#include "train/peak.h"

#include <algorithm>
#include <chrono>

#include "autograd/tensor.h"
#include "kernels/gemm.h"

namespace rodimus {

double measure_gemm_gflops(Exec& exec, DType compute) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kSize = 1024;
  const Tensor a = convert_to(exec, zeros(exec, {kSize, kSize}), compute);
  Tensor c = Tensor::empty({kSize, kSize}, compute, device_of(exec));
  double best = 0;
  const auto end = Clock::now() + std::chrono::milliseconds(250);
  do {
    const auto begin = Clock::now();
    dispatch(exec, compute, [&]<class T>(auto& backend) {
      gemm(backend, {.m = kSize, .n = kSize, .k = kSize, .transpose_b = true}, c.data<T>(),
           a.data<T>(), a.data<T>(), 0);
    });
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    best = std::max(best, 2.0 * kSize * kSize * kSize / seconds / 1e9);
  } while (Clock::now() < end);
  return best;
}

}  // namespace rodimus
