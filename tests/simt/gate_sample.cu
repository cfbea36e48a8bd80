// Kernels whose resources are known, for sass_test.py: one as it should be, and what a gate must
// catch.
#include "kernels/cuda/dev.cuh"

namespace rodimus::gate {

using namespace cuda;

// Eight products and a static array of 2048 bytes.
__global__ void __launch_bounds__(64) good_kernel(float* d, const uint32_t* a, int n) {
  SHARED_ARRAY(float, shared, 512);
  float sum[4] = {};
  uint32_t part[4];
  for (int i = 0; i < 4; ++i) part[i] = a[threadIdx.x * 4 + i];
#pragma unroll
  for (int i = 0; i < 8; ++i) ptx::mma_bf16(sum, part, part[0], part[1]);
  shared[threadIdx.x] = sum[0] + sum[1];
  __syncthreads();
  d[threadIdx.x] = shared[n - threadIdx.x] + sum[2] + sum[3];
}

#ifdef GATE_PLANTED
// More live values than the launch bound leaves registers for.
__global__ void __launch_bounds__(1024, 2) spilling_kernel(float* x, int n) {
  float values[80];
#pragma unroll
  for (int i = 0; i < 80; ++i) values[i] = x[i * n + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 80; ++i) x[i * n + threadIdx.x] = values[i] * values[(i * 37 + 11) % 80];
}
// An array that is indexed at run time.
__global__ void __launch_bounds__(64) local_array_kernel(float* x, const int* index, int n) {
  float values[32];
  for (int i = 0; i < 32; ++i) values[i] = x[i * n + threadIdx.x];
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += values[index[i] & 31];
  x[threadIdx.x] = sum;
}
__global__ void unbounded_kernel(float* x) { x[threadIdx.x] = 0; }
#endif

}  // namespace rodimus::gate
