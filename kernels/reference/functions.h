// Elementary functions of the references on any number type: double, long double, and std::complex
// for derivatives by complex step. Tests only.
#pragma once

#include <cmath>
#include <complex>

namespace rodimus::reference {

template <class R>
R sigmoid(R x) {
  using std::exp;
  return R(1) / (R(1) + exp(-x));
}

template <class R>
R silu(R x) {
  return x * sigmoid(x);
}

// log(1 + x), accurate even where 1 + x rounds: std::log1p does not take complex numbers.
template <class R>
R log1p(R x) {
  using std::abs;
  using std::log;
  if (abs(x) < 1e-4) return x * (1.0 - x * (1.0 / 2 - x * (1.0 / 3 - x * (1.0 / 4 - x / 5.0))));
  return log(R(1) + x);
}

// log(1 + e^x) and its logarithm.
template <class R>
R softplus(R x) {
  using std::exp;
  return std::real(x) > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

}  // namespace rodimus::reference
