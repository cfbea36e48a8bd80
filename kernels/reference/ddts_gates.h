// Data-dependent tempered selection, as in arXiv:2410.06577, section 3.2. Tests only.
#pragma once

#include <cstdint>

#include "kernels/reference/functions.h"

namespace rodimus::reference {

template <class R>
void ddts_gates(R* q, R* k, R* g, const R* qk, const R* gates, const R* bias, int64_t rows,
                int64_t m, double key_norm_eps) {
  using std::exp;
  using std::log;
  using std::sqrt;
  for (int64_t r = 0; r < rows; ++r) {
    const R *key = qk + r * 2 * m + m, *gate = gates + r * 2 * m;
    R squares = 0;
    for (int64_t i = 0; i < m; ++i) squares += key[i] * key[i];
    R norm = sqrt(squares);
    if (std::real(norm) < key_norm_eps) norm = key_norm_eps;
    for (int64_t i = 0; i < m; ++i) {
      const R sel = softplus(gate[i] + (bias == nullptr ? R(0) : bias[i]));
      const R tau = sigmoid(gate[m + i] + (bias == nullptr ? R(0) : bias[m + i]));
      q[r * m + i] = qk[r * 2 * m + i];
      k[r * m + i] = key[i] / norm * exp(tau * log(sel));
      g[r * m + i] = -sel * tau;
    }
  }
}

}  // namespace rodimus::reference
