// The elementary functions of the gates, to full relative accuracy in f32. Never the fast
// intrinsics: decays and temperatures live at the ends of the range.
#pragma once

#include "kernels/cuda/dev.cuh"

namespace rodimus::cuda {

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }
// d silu / dx, given sigmoid(x).
__device__ __forceinline__ float silu_slope(float x, float sigmoid_x) {
  return sigmoid_x * (1.0f + x * (1.0f - sigmoid_x));
}

// sigmoid(x) and 1 - sigmoid(x), each to full relative accuracy.
struct SigmoidPair {
  float value, complement;
};
__device__ __forceinline__ SigmoidPair sigmoid_pair(float x) {
  const float e = expf(-fabsf(x));
  const float large = 1.0f / (1.0f + e), small = e * large;
  return {x < 0.0f ? small : large, x < 0.0f ? large : small};
}

}  // namespace rodimus::cuda
