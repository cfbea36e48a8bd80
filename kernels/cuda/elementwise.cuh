// Passes over arrays without neighbours: f(i, Lanes<N>) for elements i .. i + N - 1, a thread a
// pack, the last ones one by one.
#pragma once

#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/runtime.h"

namespace rodimus::cuda {

inline constexpr int kElementwiseThreads = 256;

template <int N, class F>
__global__ void __launch_bounds__(kElementwiseThreads) elementwise_kernel(int64_t n, F f) {
  const int64_t begin = (int64_t{blockIdx.x} * kElementwiseThreads + threadIdx.x) * N;
  if (begin + N <= n) {
    f(begin, Lanes<N>{});
  } else {
    for (int64_t i = begin; i < n; ++i) f(i, Lanes<1>{});
  }
}

// `packs`: whether all arrays of f may be accessed in packs of N.
template <int N, class F>
void elementwise(Cuda& gpu, int64_t n, bool packs, const F& f) {
  if (n <= 0) return;
  const int64_t a_block = kElementwiseThreads * (packs ? N : 1);
  const auto blocks = narrow<unsigned>((n + a_block - 1) / a_block);
  CUDA_CHECK(dev::launch(blocks, kElementwiseThreads, 0, gpu.stream,
                         packs ? elementwise_kernel<N, F> : elementwise_kernel<1, F>, n, f));
}

}  // namespace rodimus::cuda
