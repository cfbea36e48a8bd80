// AdamW with clipping and the bf16 copy of the weights, one pass over a flat range.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

struct AdamWStep {
  float lr, beta1, beta2, eps, weight_decay;
  float grad_scale;                          // min(1, clip / (norm + 1e-6))
  float bias_correction1, bias_correction2;  // 1 - beta^t, t counts from 1
};

// g' = grad_scale * g;  m = beta1 m + (1-beta1) g';  v = beta2 v + (1-beta2) g'^2
// p = p - lr * weight_decay * p - lr * (m / bias_correction1) / (sqrt(v / bias_correction2) + eps)
//   p, m, v, g (n) f32; copy (n) bf16 or null receives bf16(p).       (Loshchilov & Hutter 2019,
//   arXiv:1711.05101)
void adamw(Cpu&, float* p, float* m, float* v, bf16* copy, const float* g, int64_t n,
           AdamWStep step);
void adamw(Cuda&, float* p, float* m, float* v, bf16* copy, const float* g, int64_t n,
           AdamWStep step);

}  // namespace rodimus
