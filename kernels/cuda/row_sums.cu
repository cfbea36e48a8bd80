#include "kernels/cuda/row_sums.h"

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/runtime.h"

namespace rodimus::cuda {
namespace {

constexpr int kGroups = 8;  // of lines, each summed by its own warp

__global__ void __launch_bounds__(kGroups* kWarp)
    add_lines_kernel(float* out, const float* lines, int64_t count, int64_t stride, int64_t width) {
  SHARED_ARRAY(float, sums, kGroups* kWarp);
  const int column = threadIdx.x % kWarp, group = threadIdx.x / kWarp;
  const int64_t j = int64_t{blockIdx.x} * kWarp + column;
  float sum = 0;
  if (j < width) {
    const int64_t end = count * (group + 1) / kGroups;
    for (int64_t line = count * group / kGroups; line < end; ++line)
      sum += lines[line * stride + j];
  }
  sums[threadIdx.x] = sum;
  __syncthreads();  // sums complete
  if (group != 0 || j >= width) return;
  for (int other = 1; other < kGroups; ++other) sum += sums[other * kWarp + column];
  out[j] += sum;
}

}  // namespace

void add_lines(Cuda& gpu, float* out, const float* lines, int64_t count, int64_t stride,
               int64_t width) {
  if (count == 0 || width == 0) return;
  const auto blocks = narrow<unsigned>((width + kWarp - 1) / kWarp);
  CUDA_CHECK(dev::launch(blocks, kGroups * kWarp, 0, gpu.stream, add_lines_kernel, out, lines,
                         count, stride, width));
}

}  // namespace rodimus::cuda
