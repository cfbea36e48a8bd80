// A few queries against many keys, the generation of text: the forward kernel runs on pieces of the
// keys and this adds up what they found. Costs 2 (D + 1) f32 per row and piece of device memory,
// against the (Hk + Hv) D of each key that the pieces read.
#include <algorithm>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/ska/ska_host.h"

namespace rodimus::cuda::ska {
namespace {

constexpr int kMaxSplits = 32;  // one for each lane
constexpr int kWarps = 4;

// One warp a row (b, i, h).
template <class T>
__global__ void __launch_bounds__(32 * kWarps)
    ska_combine_kernel(T* o, float* lse, const float* split_o, const float* split_lse, int splits,
                       int64_t all_rows, const Shape shape) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + warp_id();
  if (row >= all_rows) return;
  const int lane = lane_id();
  const int64_t h = row % shape.H, i = row / shape.H % shape.T, b = row / shape.H / shape.T;
  const int64_t row_of_lse = (b * shape.H + h) * shape.T + i;
  const float mine = lane < splits ? split_lse[lane * all_rows + row_of_lse] : minus_infinity();
  const float largest = cuda::warp_max(mine), weight = ptx::ex2(mine - largest),
              sum = cuda::warp_sum(weight);
  if (lane == 0) lse[row_of_lse] = (largest + log2f(sum)) * kLn2;
  for (int first = 0; first < shape.D; first += 32) {
    const int column = first + lane;
    float value = 0;
    for (int split = 0; split < splits; ++split) {
      const float share = __shfl_sync(kAllLanes, weight, split);
      if (column < shape.D)
        value = fmaf(share, split_o[(split * all_rows + row) * shape.D + column], value);
    }
    if (column < shape.D) o[row * shape.D + column] = dev::from_float<T>(value / sum);
  }
}

}  // namespace

int splits_for(int sm_count, int64_t blocks, int64_t most) {
  return narrow<int>(
      std::max<int64_t>(1, std::min({int64_t{kMaxSplits}, sm_count / blocks, most})));
}

template <class T>
void combine_splits(Cuda& gpu, T* o, float* lse, const float* split_o, const float* split_lse,
                    int splits, int64_t B, const Shape& shape) {
  const int64_t all_rows = B * shape.T * shape.H;
  CUDA_CHECK(dev::launch(narrow<unsigned>((all_rows + kWarps - 1) / kWarps), 32 * kWarps, 0,
                         gpu.stream, ska_combine_kernel<T>, o, lse, split_o, split_lse, splits,
                         all_rows, shape));
}
template void combine_splits(Cuda&, float*, float*, const float*, const float*, int, int64_t,
                             const Shape&);
template void combine_splits(Cuda&, bf16*, float*, const float*, const float*, int, int64_t,
                             const Shape&);

}  // namespace rodimus::cuda::ska
