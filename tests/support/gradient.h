// Gradients of a reference by complex step: exact to rounding, no step size to tune, because
// nothing is subtracted. The reference must be a template on the number type.
#pragma once

#include <complex>
#include <vector>

namespace rodimus::testing {

using Complex = std::complex<double>;
using ComplexVector = std::vector<Complex>;

inline ComplexVector to_complex(const std::vector<double>& x) { return {x.begin(), x.end()}; }

// d loss / d x at x; loss(const ComplexVector&) -> Complex.
template <class Loss>
std::vector<double> complex_step(const std::vector<double>& x, Loss loss) {
  constexpr double kStep = 1e-100;
  ComplexVector z = to_complex(x);
  std::vector<double> gradient;
  gradient.reserve(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    z[i] = Complex(x[i], kStep);
    gradient.push_back(loss(z).imag() / kStep);
    z[i] = x[i];
  }
  return gradient;
}

// sum of a[i] * b[i]: turns outputs into a loss whose gradient with respect to them is b.
inline Complex dot(const ComplexVector& a, const std::vector<double>& b) {
  Complex sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace rodimus::testing
