// Attention backward in three passes, none of which adds to device memory, so that every sum has a
// fixed order: delta = <d_o, o> per row; dq by blocks that own queries; dk and dv by blocks that
// own keys and walk all heads that share them. Scores are computed again in both: 7 products
// instead of 5 is the price of sums without atomics and without (T, window) matrices. Workspace:
// delta, B H T f32.
#include <cmath>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/ska/ska_backward.h"
#include "kernels/memory.h"

namespace rodimus {
namespace cuda::ska {
namespace {

constexpr int kWarps = 8, kRows = 32;

// delta (B,H,T) = sum over D of d_o o, both (B,T,H,D). A block takes kRows positions of a head.
template <class T>
__global__ void __launch_bounds__(32 * kWarps)
    ska_delta_kernel(float* delta, const T* d_o, const T* o, int blocks_per_head,
                     const Shape shape) {
  constexpr int kChunk = 16 / static_cast<int>(sizeof(T));
  SHARED_ARRAY(float, sums, kRows);
  const int head = static_cast<int>(blockIdx.x) / blocks_per_head;  // b H + h
  const int first = static_cast<int>(blockIdx.x) % blocks_per_head * kRows;
  const int64_t b = head / shape.H, h = head % shape.H;
  for (int row = warp_id(); row < kRows; row += kWarps) {
    float sum = 0;
    if (first + row < shape.T) {
      const int64_t at = ((b * shape.T + first + row) * shape.H + h) * shape.D;
      if (shape.vectors) {
        for (int column = lane_id() * kChunk; column < shape.D; column += 32 * kChunk) {
          const auto x = cuda::load<kChunk>(d_o + at + column),
                     y = cuda::load<kChunk>(o + at + column);
#pragma unroll
          for (int e = 0; e < kChunk; ++e) sum = fmaf(x.v[e], y.v[e], sum);
        }
      } else {
        for (int column = lane_id(); column < shape.D; column += 32)
          sum = fmaf(dev::to_float(d_o[at + column]), dev::to_float(o[at + column]), sum);
      }
    }
    sum = cuda::warp_sum(sum);
    if (lane_id() == 0) sums[row] = sum;
  }
  __syncthreads();  // all sums are there: the row of them is stored as a whole
  const int i = first + static_cast<int>(threadIdx.x);
  if (threadIdx.x < kRows && i < shape.T) delta[int64_t{head} * shape.T + i] = sums[threadIdx.x];
}

}  // namespace
}  // namespace cuda::ska

template <class T>
void ska_backward(Cuda& gpu, const SkaBackwardArgs<T>& args) {
  using namespace cuda;
  using namespace cuda::ska;
  const SkaDims dims = ska_checked(args.dims, args.starts != nullptr);
  if (dims.B == 0 || dims.Tk == 0) return;
  const Shape shape =
      shape_of<T>(dims, {args.dq, args.dk, args.dv, args.d_o, args.q, args.k, args.v, args.o});
  const int64_t heads = dims.B * dims.H;
  const memory::Scratch<float> delta(heads * dims.T, Device::cuda);
  const BackwardArgs<T> pass{{args.q, args.k, args.v, args.starts, shape},
                             args.d_o,
                             args.lse,
                             delta.data(),
                             args.dq,
                             args.dk,
                             args.dv,
                             dims.B,
                             1.0f / std::sqrt(static_cast<float>(dims.D))};
  if (dims.T > 0) {
    const int blocks_per_head = (shape.T + kRows - 1) / kRows;
    CUDA_CHECK(dev::launch(narrow<unsigned>(heads * blocks_per_head), 32 * kWarps, 0, gpu.stream,
                           ska_delta_kernel<T>, delta.data(), args.d_o, args.o, blocks_per_head,
                           shape));
    backward_queries(gpu, pass);
  }
  backward_keys(gpu, pass);
}

template void ska_backward(Cuda&, const SkaBackwardArgs<float>&);
template void ska_backward(Cuda&, const SkaBackwardArgs<bf16>&);

}  // namespace rodimus
