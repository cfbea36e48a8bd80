// Sums over a warp and over a block, in an order that depends on the block's size alone.
#pragma once

#include "base/error.h"
#include "kernels/cuda/dev.cuh"
#include "kernels/exec.h"

namespace rodimus::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kMaxWarps = 32;

// On every lane the same bits: a + b = b + a.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

// Of all threads, on every thread. `partial` is shared, one element a warp; whole warps only.
template <class T>
__device__ __forceinline__ T block_sum(T value, T* partial) {
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) partial[warp] = value;
  __syncthreads();
  T sum = partial[0];
  for (int i = 1; i < warps; ++i) sum += partial[i];
  __syncthreads();  // partial may be written again
  return sum;
}

// Threads for a row of `packs` packs: whole warps, no more than there is work for.
inline int threads_for(int64_t packs, int most) {
  const int64_t warps = (packs + kWarp - 1) / kWarp;
  return static_cast<int>(warps < 1 ? kWarp : warps * kWarp > most ? most : warps * kWarp);
}

// Elements of a row that a block has room for when it keeps `per_column` bytes for each.
inline int64_t longest_row(const Cuda& gpu, int64_t per_column) {
  constexpr int64_t kStaticArrays = 1024;  // at most: they share the memory
  return (gpu.shared_bytes - kStaticArrays) / per_column;
}

// Shared memory of such a block.
inline size_t row_bytes(const Cuda& gpu, const char* op, int64_t per_column, int64_t dim) {
  const int64_t most = longest_row(gpu, per_column);
  CHECK(dim <= most, op, ": dim = ", dim, ", a block of this GPU holds rows up to ", most);
  return static_cast<size_t>(per_column * dim);
}

}  // namespace rodimus::cuda
