// Kernels with planted faults: the emulator must find each of them under every schedule and say
// nothing of the same kernels without a fault.
#pragma once

#include <cuda_runtime.h>

#include "kernels/dtype.h"

namespace rodimus::planted {

enum class Bug {
  none,
  // rms_norm
  missing_barrier,      // partial sums are read before all are written
  barrier_in_branch,    // half of the block never arrives
  barrier_in_each_arm,  // both sides of a branch wait, each at a barrier of its own
  past_global_end,      // one iteration too many
  past_shared_end,      // a slot that does not exist
  unwritten_shared,     // one warp forgets its slot
  partial_shuffle,      // half of a warp skips a shuffle of the whole warp
  two_blocks_one_word,  // neighbouring blocks write the same result
  // transpose
  missing_syncwarp,  // a shuffle is taken for a memory barrier
  // gemm
  short_wait,            // one pipeline stage too few is waited for
  missing_tile_barrier,  // other threads' copies are read without a barrier
  unguarded_copy,        // rows past the edge are copied too
  early_prefetch,        // a stage is overwritten while slower warps read it
  // sum_products
  long_tensor_sum,  // tensor cores are taken to round: the whole sum goes through them
};

// y = x / rms(x) * w for rows of `dim` (a multiple of 8); rstd[row] = 1 / rms.
cudaError_t rms_norm(Bug bug, const bf16* x, const float* w, bf16* y, float* rstd, int rows,
                     int dim, cudaStream_t stream);
// out = transpose of in, both 32 x 32, by one warp.
cudaError_t transpose(Bug bug, const float* in, float* out, cudaStream_t stream);
// c (m x n) = a (m x k) b^T (n x k), k a multiple of 8, n even.
cudaError_t gemm(Bug bug, const bf16* a, const bf16* b, bf16* c, int m, int n, int k,
                 cudaStream_t stream);
// sums (16 x 8, each 4 values of a lane of one warp) = sum over steps of 16 a[step] b[step], as
// exact as f32.
cudaError_t sum_products(Bug bug, const bf16* a, const bf16* b, float* sums, int steps,
                         cudaStream_t stream);

// Reads in[i], writes out[i] for n threads of one block; for tests with wrong pointers.
cudaError_t copy_floats(const float* in, float* out, int n, cudaStream_t stream);
// The same with 16 bytes a thread.
cudaError_t copy_vectors(const float* in, float* out, int vectors, cudaStream_t stream);
// Reads device memory from host code, as no program may.
float read_on_host(const float* device_pointer);

// A kernel with kStaticShared bytes in static arrays, launched with `dynamic` more, as dev::launch
// does it or as `opt_in` says. It writes 1 to out.
inline constexpr size_t kStaticShared = 128 + 16;
enum class OptIn { as_launch_does, by_dynamic_part, never };
cudaError_t use_shared(OptIn opt_in, dim3 grid, dim3 block, size_t dynamic, float* out);
// Its array stands in a function that the kernel calls.
cudaError_t use_hidden_shared(float* out);

}  // namespace rodimus::planted
