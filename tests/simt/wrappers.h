// Launches of the probes of wrappers.cu, each by one warp (bar_sync: four). All arrays are in
// device memory; "per lane" means that lane i owns the elements from i * count.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace rodimus::wrappers {

inline constexpr int kTileWords = 4 * 8 * 8 / 2;  // four 8 x 8 matrices of 16 bits

// d += a b: per lane 4 of d, 4 of a, 2 of b.
cudaError_t mma_bf16(float* d, const uint32_t* a, const uint32_t* b);
cudaError_t mma_tf32(float* d, const uint32_t* a, const uint32_t* b);
// out: per lane `matrices` (2 or 4) words; in: kTileWords; offsets: a byte offset for each lane.
cudaError_t ldmatrix(int matrices, bool transposed, uint32_t* out, const uint32_t* in,
                     const uint32_t* offsets);
// Per lane `bytes` (4, 8 or 16) of in and out, of which counts[lane] are copied.
cudaError_t cp_async(int bytes, uint32_t* out, const uint32_t* in, const uint32_t* counts);
// out = in, 2 words per lane, in two groups.
cudaError_t cp_groups(uint32_t* out, const uint32_t* in);
// out = in, 224 words: 128 by 16 bytes a lane, 64 by 8, 32 by 4.
cudaError_t copy_through_registers(uint32_t* out, const uint32_t* in);
cudaError_t copy_through_shared(uint32_t* out, const uint32_t* in);
enum class Function { ex2, lg2, rcp };
cudaError_t function(Function which, float* y, const float* x);  // 32 values
cudaError_t to_tf32(uint32_t* y, const float* x);
// 128 in, 128 out: each half reversed.
cudaError_t bar_sync(int* out, const int* in);

}  // namespace rodimus::wrappers
