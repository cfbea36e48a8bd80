#include "tests/support/compare.h"

#include <cmath>
#include <limits>

namespace rodimus::testing {

double relative_rms(std::span<const double> got, std::span<const double> want) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (got.size() != want.size()) return kInfinity;
  // Scaled by the largest value, so that squares of values near 1e-200 or 1e200 do not vanish or
  // overflow.
  double scale = 0;
  for (const double w : want) scale = std::max(scale, std::abs(w));
  for (size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(got[i]) || !std::isfinite(want[i])) return kInfinity;
    if (scale == 0 && got[i] != 0) return kInfinity;
  }
  if (scale == 0) return 0;
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = (got[i] - want[i]) / scale, w = want[i] / scale;
    error += d * d;
    norm += w * w;
  }
  return std::sqrt(error / norm);
}

::testing::AssertionResult close(std::span<const double> got, std::span<const double> want,
                                 double tolerance) {
  const double error = relative_rms(got, want);
  if (error <= tolerance) return ::testing::AssertionSuccess();
  auto failure = ::testing::AssertionFailure()
                 << "relative rms error " << error << ", allowed " << tolerance;
  if (got.size() != want.size())
    return failure << "; sizes " << got.size() << " and " << want.size();
  size_t worst = 0;
  double largest = -1;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(got[i] - want[i]);
    if (!(d <= largest)) {
      worst = i, largest = d;
      if (std::isnan(d)) break;
    }
  }
  return failure << "; worst at " << worst << " of " << got.size() << ": got " << got[worst]
                 << ", want " << want[worst];
}

}  // namespace rodimus::testing
