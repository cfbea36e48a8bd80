// Inputs for tests: reproducible, independent of the library under test.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/dtype.h"

namespace rodimus::testing {

// n draws from a standard normal. std::mt19937_64 with a sum of twelve uniforms: the same on every
// standard library.
inline std::vector<double> normal(int64_t n, uint64_t seed, double scale = 1) {
  std::mt19937_64 engine(seed * 0x9e3779b97f4a7c15u + 1);
  std::vector<double> x(static_cast<size_t>(n));
  for (double& value : x) {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(engine() >> 11) * 0x1p-53;
    value = sum * scale;
  }
  return x;
}

inline std::vector<double> uniform(int64_t n, uint64_t seed, double low, double high) {
  std::mt19937_64 engine(seed * 0x9e3779b97f4a7c15u + 2);
  std::vector<double> x(static_cast<size_t>(n));
  for (double& value : x)
    value = low + (high - low) * static_cast<double>(engine() >> 11) * 0x1p-53;
  return x;
}

// The values rounded to type T.
template <class T>
std::vector<T> cast(const std::vector<double>& x) {
  std::vector<T> out;
  out.reserve(x.size());
  for (const double value : x) out.push_back(T(static_cast<float>(value)));
  return out;
}

}  // namespace rodimus::testing
