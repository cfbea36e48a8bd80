// One needed barrier, in a header that both sources include and only needed.cu uses.
#pragma once

#include "kernels/cuda/dev.cuh"

namespace rodimus::barrier_sample {

inline constexpr int kThreads = 64;

template <class T>
__device__ __forceinline__ T block_sum(T value, T* values) {
  values[threadIdx.x] = value;
  __syncthreads();  // header
  T sum = values[0];
  for (int i = 1; i < kThreads; ++i) sum += values[i];
  return sum;
}

}  // namespace rodimus::barrier_sample
