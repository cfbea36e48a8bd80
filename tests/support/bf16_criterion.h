// The criterion for bf16 results (also used by FlashAttention's tests): at most twice as wrong as a
// plain implementation in the same type, which rounds every array that it stores and sums in f32.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "tests/support/compare.h"

namespace rodimus::testing {

// The nearest bf16, as a float: how a plain implementation rounds each value that it stores.
inline float stored(float x) { return to_f32(bf16(x)); }
inline std::vector<float> stored(std::vector<float> x) {
  for (float& value : x) value = stored(value);
  return x;
}

// `tolerance`: the error of `want` itself, or of an f32 result. Also fails if the plain result is
// useless as a yardstick: off by more than a tenth or not finite.
inline ::testing::AssertionResult at_most_twice_as_wrong(std::span<const double> ours,
                                                         std::span<const double> plain,
                                                         std::span<const double> want,
                                                         double tolerance) {
  const double yardstick = relative_rms(plain, want);
  if (!(yardstick <= 0.1)) return close(plain, want, 0.1) << " (the plain implementation)";
  return close(ours, want, 2 * yardstick + tolerance);
}

}  // namespace rodimus::testing
