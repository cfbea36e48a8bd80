// The error bound of most kernel tests, derived from the arithmetic: inputs are exact, work is in
// f32, the result is rounded once.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/dtype.h"

namespace rodimus::testing {

// Relative RMS error of a result stored as T: the rounding of the store (for bf16 no implementation
// can be below a third of it), the elementwise f32 steps (about eight, 1e-7 in the elementary
// functions), and a sum of `terms` numbers of random sign, where each step loses at most half a
// unit.
template <class T>
double tolerance(int64_t terms = 1) {
  return epsilon_of(DTypeOf<T>::value) +
         (8 + 2 * std::sqrt(static_cast<double>(terms))) * epsilon_of(DType::f32);
}

}  // namespace rodimus::testing
