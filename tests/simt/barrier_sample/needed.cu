#include "tests/simt/barrier_sample/sample.h"
#include "tests/simt/barrier_sample/sum.cuh"

namespace rodimus::barrier_sample {
namespace {

using namespace cuda;

__global__ void __launch_bounds__(kThreads) reverse_plus_sum_kernel(const float* in, float* out) {
  SHARED_ARRAY(float, values, kThreads);
  SHARED_ARRAY(float, reversed, kThreads);
  const int i = static_cast<int>(threadIdx.x);
  const float sum = block_sum(in[i], values);
  reversed[kThreads - 1 - i] = in[i];
  __syncthreads();  // needed
  out[i] = reversed[i] + sum;
}

}  // namespace

cudaError_t reverse_plus_sum(const float* in, float* out, cudaStream_t stream) {
  return dev::launch(1, kThreads, 0, stream, reverse_plus_sum_kernel, in, out);
}

}  // namespace rodimus::barrier_sample
