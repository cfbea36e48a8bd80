// Head and loss over blocks of rows, as on the CPU: a block's logits are made by cuBLASLt, one pass
// turns each row into its loss and its gradient (in place when that is f32), and two more products
// use the gradients up. Memory: one block of logits, and of gradients in bf16; a row of logits is
// read twice, the second time mostly from L2.
#include "kernels/head_loss_blocks.h"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/faults.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/memory.h"

namespace rodimus {
namespace {

using namespace cuda;

constexpr int kPack = 4;  // of the f32 logits: 16 bytes
constexpr int kMaxThreads = 512;

// sum(exp(z)) = sum * exp(largest).
struct LogSum {
  float largest = -INFINITY, sum = 0;
};

// The same sum relative to `largest`, which is at least all.largest. Where all is -inf so far,
// weights are zero, not exp(-inf + inf).
__device__ __forceinline__ float shift_of(float largest) {
  return largest == -INFINITY ? 0.0f : largest;
}
__device__ __forceinline__ LogSum relative_to(float largest, LogSum all) {
  return {largest, all.sum * expf(all.largest - shift_of(largest))};
}

__device__ __forceinline__ LogSum warp_log_sum(LogSum all) {
  all = relative_to(warp_max(all.largest), all);
  return {all.largest, warp_sum(all.sum)};
}

// f(j, Lanes<N>) or f(j, Lanes<1>) for this thread's packs j of a row and, one by one, its end.
template <int N, class F>
__device__ __forceinline__ void for_row(int64_t vocab, F f) {
  for (int64_t j = threadIdx.x * N; j < vocab; j += blockDim.x * N) {
    if (j + N <= vocab) {
      f(j, Lanes<N>{});
    } else {
      for (int64_t k = j; k < vocab; ++k) f(k, Lanes<1>{});
    }
  }
}

// cross_entropy() with rows of z and dz `ld` elements apart, a block a row. dz may be z or null.
// `first` is the number of row 0.
template <int N, class T>
__global__ void __launch_bounds__(kMaxThreads)
    cross_entropy_kernel(float* losses, T* dz, const float* z, int64_t ld, const int32_t* targets,
                         float scale, int64_t first, int64_t vocab, uint64_t* faults) {
  SHARED_ARRAY(LogSum, of_warps, kMaxWarps);
  const int64_t row = blockIdx.x;
  const float* const logits = z + row * ld;
  T* const gradients = dz == nullptr ? nullptr : dz + row * ld;
  const int32_t target = targets[row];
  if (target < 0 || target >= vocab) {
    if (threadIdx.x == 0) {
      losses[row] = 0;
      if (target != kIgnoreTarget) report(faults, Fault::target, first + row, target, vocab);
    }
    if (gradients != nullptr)
      for_row<N>(vocab, [&]<int M>(int64_t j, Lanes<M>) { store(gradients + j, Pack<M>{}); });
    return;
  }
  LogSum all;
  for_row<N>(vocab, [&]<int M>(int64_t j, Lanes<M>) {
    const Pack<M> value = load<M>(logits + j);
    float largest = all.largest;
#pragma unroll
    for (int l = 0; l < M; ++l) largest = fmaxf(largest, value.v[l]);
    all = relative_to(largest, all);
#pragma unroll
    for (int l = 0; l < M; ++l) all.sum += expf(value.v[l] - shift_of(largest));
  });
  all = warp_log_sum(all);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (lane == 0) of_warps[warp] = all;
  const float hit = logits[target];  // before dz may take its place
  __syncthreads();                   // of_warps complete, hit read
  all = warp_log_sum(lane < static_cast<int>(blockDim.x / kWarp) ? of_warps[lane] : LogSum{});
  if (threadIdx.x == 0) losses[row] = (all.largest - hit) + logf(all.sum);
  if (gradients == nullptr) return;
  const float factor = scale / all.sum;
  for_row<N>(vocab, [&]<int M>(int64_t j, Lanes<M>) {
    Pack<M> value = load<M>(logits + j);
#pragma unroll
    for (int l = 0; l < M; ++l) {
      value.v[l] = factor * expf(value.v[l] - all.largest);
      if (j + l == target) value.v[l] -= scale;
    }
    store(gradients + j, value);
  });
}

template <class T>
void cross_entropy_rows(Cuda& gpu, float* losses, T* dz, const float* z, int64_t ld,
                        const int32_t* targets, float scale, int64_t first, int64_t rows,
                        int64_t vocab) {
  const bool packs = packs_fit<kPack>(ld, z, dz);
  CUDA_CHECK(dev::launch(
      narrow<unsigned>(rows), threads_for(packs ? (vocab + kPack - 1) / kPack : vocab, kMaxThreads),
      0, gpu.stream, packs ? cross_entropy_kernel<kPack, T> : cross_entropy_kernel<1, T>, losses,
      dz, z, ld, targets, scale, first, vocab, gpu.faults));
}

// dx and dw null: losses only.
template <class T>
void run(Cuda& gpu, const HeadLossBackwardArgs<T>& args) {
  check_head_loss(args.dims);
  head_loss_blocks(gpu, args, [&](int64_t first, int64_t rows, T* dz, const float* z, int64_t ld) {
    cross_entropy_rows(gpu, args.losses + first, dz, z, ld, args.targets + first, args.scale, first,
                       rows, args.dims.vocab);
  });
}

}  // namespace

template <class T>
void head_loss_forward(Cuda& gpu, const HeadLossForwardArgs<T>& args) {
  run<T>(gpu, {.dims = args.dims,
               .x = args.x,
               .w = args.w,
               .targets = args.targets,
               .scale = 0,
               .losses = args.losses,
               .dx = nullptr,
               .dw = nullptr});
}

template <class T>
void head_loss_forward_backward(Cuda& gpu, const HeadLossBackwardArgs<T>& args) {
  run(gpu, args);
}

template <class T>
void cross_entropy(Cuda& gpu, float* losses, T* dz, const float* z, const int32_t* targets,
                   float scale, int64_t rows, int64_t vocab) {
  if (rows == 0) return;
  cross_entropy_rows(gpu, losses, dz, z, vocab, targets, scale, 0, rows, vocab);
}

#define INSTANTIATE(T)                                                                         \
  template void head_loss_forward(Cuda&, const HeadLossForwardArgs<T>&);                       \
  template void head_loss_forward_backward(Cuda&, const HeadLossBackwardArgs<T>&);             \
  template void cross_entropy(Cuda&, float*, T*, const float*, const int32_t*, float, int64_t, \
                              int64_t);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
