// The passes of ska_backward and what they are given.
#pragma once

#include "kernels/cuda/ska/ska_host.h"
#include "kernels/cuda/ska/ska_query_rows.cuh"

namespace rodimus::cuda::ska {

template <class T>
struct BackwardArgs {
  QueryInputs<T> in;
  const T* d_o;
  const float *lse, *delta;  // (B,H,T)
  T *dq, *dk, *dv;           // null: not wanted
  int64_t B;
  float scale;  // 1 / sqrt(D)
};

template <class T>
void backward_queries(Cuda& gpu, const BackwardArgs<T>& args);  // dq
template <class T>
void backward_keys(Cuda& gpu, const BackwardArgs<T>& args);  // dk, dv

// Weights and their gradients: s = scores -> p = 2^(s scale - lse); dp -> ds = p (dp - delta).
// Element e of the fragments belongs to the query that lse(e) and delta(e) speak of.
struct Slope {
  float scale;  // log2(e) / sqrt(D)
  __device__ __forceinline__ void apply(float& s, float& dp, float lse, float delta,
                                        bool seen) const {
    const float p = ptx::ex2(fmaf(s, scale, -lse * kLog2e));
    s = seen ? p : 0.0f;
    dp = seen ? p * (dp - delta) : 0.0f;
  }
};

}  // namespace rodimus::cuda::ska
