// Whole-array sums in the widest type available. Tests only.
#pragma once

#include <cstdint>

namespace rodimus::reference {

inline long double sum(const float* x, int64_t n) {
  long double total = 0;
  for (int64_t i = 0; i < n; ++i) total += x[i];
  return total;
}

inline long double sum_of_squares(const float* x, int64_t n) {
  long double total = 0;
  for (int64_t i = 0; i < n; ++i) total += static_cast<long double>(x[i]) * x[i];
  return total;
}

}  // namespace rodimus::reference
