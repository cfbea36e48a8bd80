// u = (o + skip_weight c) silu(gate), y = u / sqrt(mean(u^2) + eps) w. Tests only.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/reference/functions.h"

namespace rodimus::reference {

// c and skip_weight may both be null.
template <class R>
void gated_norm(R* y, R* rstd, const R* o, const R* c, const R* skip_weight, const R* gate,
                const R* w, int64_t rows, int64_t dim, double eps) {
  using std::sqrt;
  std::vector<R> u(static_cast<size_t>(dim));
  for (int64_t r = 0; r < rows; ++r) {
    R squares = 0;
    for (int64_t i = 0; i < dim; ++i) {
      const R skip = c == nullptr ? R(0) : skip_weight[i] * c[r * dim + i];
      u[static_cast<size_t>(i)] = (o[r * dim + i] + skip) * silu(gate[r * dim + i]);
      squares += u[static_cast<size_t>(i)] * u[static_cast<size_t>(i)];
    }
    rstd[r] = 1.0 / sqrt(squares / static_cast<double>(dim) + eps);
    for (int64_t i = 0; i < dim; ++i) y[r * dim + i] = u[static_cast<size_t>(i)] * rstd[r] * w[i];
  }
}

}  // namespace rodimus::reference
