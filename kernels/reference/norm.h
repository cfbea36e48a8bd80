// s = x + branch, y = s / sqrt(mean(s^2) + eps) * w on any number type. Tests only.
#pragma once

#include <cmath>
#include <cstdint>

namespace rodimus::reference {

// branch may be null; s (rows, dim) and rstd (rows) are always written.
template <class R>
void residual_norm(R* s, R* y, R* rstd, const R* x, const R* branch, const R* w, int64_t rows,
                   int64_t dim, double eps) {
  using std::sqrt;
  for (int64_t r = 0; r < rows; ++r) {
    R squares = 0;
    for (int64_t i = r * dim; i < (r + 1) * dim; ++i) {
      s[i] = branch == nullptr ? x[i] : x[i] + branch[i];
      squares += s[i] * s[i];
    }
    rstd[r] = 1.0 / sqrt(squares / static_cast<double>(dim) + eps);
    for (int64_t i = 0; i < dim; ++i) y[r * dim + i] = s[r * dim + i] * rstd[r] * w[i];
  }
}

}  // namespace rodimus::reference
