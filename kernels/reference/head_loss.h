// Specification of kernels/head_loss.h. Number is double or std::complex<double> (for derivatives
// by complex step).
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <vector>

#include "kernels/head_loss.h"

namespace rodimus::reference {

// logsumexp(z) - z[target]; 0 for kIgnoreTarget.
template <class Number>
Number cross_entropy(const Number* z, int32_t target, int64_t vocab) {
  using std::exp, std::log;
  if (target == kIgnoreTarget) return Number(0);
  double largest = std::real(z[0]);
  for (int64_t j = 1; j < vocab; ++j) largest = std::max(largest, std::real(z[j]));
  Number sum = 0;
  for (int64_t j = 0; j < vocab; ++j) sum += exp(z[j] - largest);
  return log(sum) + largest - z[target];
}

// losses (rows) of z = x w^T.
template <class Number>
void head_loss(Number* losses, const Number* x, const Number* w, const int32_t* targets,
               HeadLossDims dims) {
  std::vector<Number> z(static_cast<size_t>(dims.vocab));
  for (int64_t r = 0; r < dims.rows; ++r) {
    for (int64_t j = 0; j < dims.vocab; ++j) {
      Number sum = 0;
      for (int64_t c = 0; c < dims.dim; ++c) sum += x[r * dims.dim + c] * w[j * dims.dim + c];
      z[static_cast<size_t>(j)] = sum;
    }
    losses[r] = cross_entropy(z.data(), targets[r], dims.vocab);
  }
}

}  // namespace rodimus::reference
