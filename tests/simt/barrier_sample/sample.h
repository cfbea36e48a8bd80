// Kernels for delete_barriers_test.py: two barriers are needed, one is redundant.
#pragma once

#include <cuda_runtime.h>

namespace rodimus::barrier_sample {

// out[i] = in[63 - i] + sum of in, 64 floats.
cudaError_t reverse_plus_sum(const float* in, float* out, cudaStream_t stream);
// out[i] = 2 in[i], 64 floats.
cudaError_t twice(const float* in, float* out, cudaStream_t stream);

}  // namespace rodimus::barrier_sample
