// One AdamW step as in arXiv:1711.05101, with a constant schedule multiplier. Tests only.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/adamw.h"

namespace rodimus::reference {

inline void adamw(double* p, double* m, double* v, const double* g, int64_t n,
                  const AdamWStep& step) {
  for (int64_t i = 0; i < n; ++i) {
    const double grad = static_cast<double>(step.grad_scale) * g[i];
    m[i] = step.beta1 * m[i] + (1.0 - step.beta1) * grad;
    v[i] = step.beta2 * v[i] + (1.0 - step.beta2) * grad * grad;
    const double m_hat = m[i] / step.bias_correction1, v_hat = v[i] / step.bias_correction2;
    p[i] -= step.lr * (step.weight_decay * p[i] + m_hat / (std::sqrt(v_hat) + step.eps));
  }
}

}  // namespace rodimus::reference
