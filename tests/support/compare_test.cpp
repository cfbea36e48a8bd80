// Tests of the test helpers: everything that a comparison must reject.
#include "tests/support/compare.h"

#include <cmath>
#include <limits>

namespace rodimus::testing {
namespace {

using V = std::vector<double>;

TEST(Close, AcceptsWhatItShould) {
  EXPECT_TRUE(close(V{0, 0}, V{0, 0}, 1e-6));
  EXPECT_TRUE(close(V{1, 2}, V{1, 2}, 0));
  EXPECT_TRUE(close(V{1 + 1e-7, 2}, V{1, 2}, 1e-6));
  EXPECT_TRUE(close(V{1e-200, 2e-200}, V{1e-200, 2e-200}, 1e-12));
}

TEST(Close, RejectsWhatItMust) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN(),
                   kInf = std::numeric_limits<double>::infinity();
  EXPECT_FALSE(close(V{1, kNan}, V{1, 2}, 1e9));
  EXPECT_FALSE(close(V{kNan, 2}, V{kNan, 2}, 1e9));
  EXPECT_FALSE(close(V{kInf, 2}, V{kInf, 2}, 1e9));
  EXPECT_FALSE(close(V{-5}, V{5}, 1e-2)) << "sign";
  EXPECT_FALSE(close(V{1, 2}, V{1}, 1)) << "size";
  EXPECT_FALSE(close(V{}, V{1}, 1)) << "empty";
  EXPECT_FALSE(close(V{0}, V{1}, 1e-2)) << "all zero";
  EXPECT_FALSE(close(V{1e-30}, V{0}, 1)) << "noise where zero is due";
  EXPECT_FALSE(close(V{1e-200, 0}, V{1e-200, 2e-200}, 1e-3)) << "tiny values";
}

TEST(Close, RejectsPermutedAndShiftedRows) {
  V want(1000), shifted(1000), swapped;
  for (size_t i = 0; i < want.size(); ++i) want[i] = std::sin(0.1 * static_cast<double>(i));
  for (size_t i = 0; i < want.size(); ++i) shifted[i] = want[(i + 1) % want.size()];
  swapped = want;
  std::swap(swapped[10], swapped[20]);
  EXPECT_FALSE(close(shifted, want, 1e-3));
  EXPECT_FALSE(close(swapped, want, 1e-3));
}

}  // namespace
}  // namespace rodimus::testing
