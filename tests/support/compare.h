// Comparing two arrays. The checks always ask "is it good", so NaN and wrong sizes fail by
// construction.
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <vector>

namespace rodimus::testing {

// rms(got - want) / rms(want). Infinity if sizes differ or anything is not finite. Zero if both are
// all zero; infinity if only `want` is all zero.
double relative_rms(std::span<const double> got, std::span<const double> want);

// Success if relative_rms(got, want) <= tolerance. The failure message gives the error, the worst
// element and its index.
::testing::AssertionResult close(std::span<const double> got, std::span<const double> want,
                                 double tolerance);

// Converts anything that static_casts to double (float, bf16, int32_t).
template <class T>
std::vector<double> to_double(std::span<const T> x) {
  std::vector<double> out;
  out.reserve(x.size());
  for (const T& value : x) out.push_back(static_cast<double>(static_cast<float>(value)));
  return out;
}
template <class T>
std::vector<double> to_double(const std::vector<T>& x) {
  return to_double(std::span<const T>(x));
}

}  // namespace rodimus::testing
