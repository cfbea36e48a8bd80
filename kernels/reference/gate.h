// SwiGLU and the sigmoid gate. Tests only.
#pragma once

#include <cstdint>

#include "kernels/reference/functions.h"

namespace rodimus::reference {

template <class R>
void swiglu(R* y, const R* u, const R* z, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = silu(z[i]) * u[i];
}

template <class R>
void sigmoid_gate(R* y, const R* z, const R* bias, const R* x, int64_t rows, int64_t dim) {
  for (int64_t i = 0; i < rows * dim; ++i) y[i] = sigmoid(z[i] + bias[i % dim]) * x[i];
}

}  // namespace rodimus::reference
