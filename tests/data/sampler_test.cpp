#include "data/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "base/error.h"

namespace rodimus {
namespace {

std::vector<uint64_t> epoch(const Sampler& sampler, uint64_t n, uint64_t e) {
  std::vector<uint64_t> order;
  for (uint64_t i = 0; i < n; ++i) order.push_back(sampler.window(e * n + i));
  return order;
}

TEST(Sampler, EveryEpochVisitsEveryWindowOnce) {
  for (const uint64_t n :
       {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 63, 64, 65, 100, 257, 1000, 4096, 10007}) {
    const Sampler sampler(n, /*seed=*/n + 5);
    for (uint64_t e = 0; e < 3; ++e) {
      const auto order = epoch(sampler, n, e);
      const std::set<uint64_t> seen(order.begin(), order.end());
      EXPECT_EQ(seen.size(), n);
      EXPECT_EQ(*seen.rbegin(), n - 1) << "n = " << n << ", epoch " << e;
    }
  }
}

TEST(Sampler, EpochsAndSeedsDiffer) {
  const uint64_t n = 1000;
  const Sampler sampler(n, 1);
  EXPECT_NE(epoch(sampler, n, 0), epoch(sampler, n, 1));
  EXPECT_NE(epoch(sampler, n, 0), epoch(Sampler(n, 2), n, 0));
  EXPECT_EQ(epoch(sampler, n, 1), epoch(Sampler(n, 1), n, 1));
}

TEST(Sampler, OrderIsFixedForever) {
  // Resumed runs rely on these exact numbers: changing the mixing breaks every old checkpoint.
  EXPECT_EQ(epoch(Sampler(10, 42), 10, 0), (std::vector<uint64_t>{7, 1, 2, 3, 9, 8, 6, 4, 5, 0}));
}

TEST(Sampler, WithoutShuffleInOrder) {
  const Sampler sampler(5, 1, /*shuffle=*/false);
  EXPECT_EQ(epoch(sampler, 5, 0), (std::vector<uint64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(epoch(sampler, 5, 7), (std::vector<uint64_t>{0, 1, 2, 3, 4}));
}

TEST(Sampler, LooksRandom) {
  // For a uniform permutation of n, i and its image are uncorrelated: the coefficient is normal
  // with deviation 1 / sqrt(n - 1). The same for neighbours in the order. Five deviations: 1 in
  // 10^6.
  const uint64_t n = 20011;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const auto order = epoch(Sampler(n, seed), n, 0);
    const double mean = (static_cast<double>(n) - 1) / 2;
    double variance = 0, with_place = 0, with_next = 0;
    for (size_t i = 0; i < n; ++i) {
      const double x = static_cast<double>(order[i]) - mean;
      variance += x * x;
      with_place += x * (static_cast<double>(i) - mean);
      with_next += x * (static_cast<double>(order[(i + 1) % n]) - mean);
    }
    const double bound = 5 / std::sqrt(static_cast<double>(n) - 1);
    EXPECT_LE(std::abs(with_place / variance), bound) << seed;
    EXPECT_LE(std::abs(with_next / variance), bound) << seed;
  }
}

TEST(Sampler, FirstWindowIsUniformOverSeeds) {
  // Chi-square with 7 windows, 7000 seeds: 6 degrees of freedom, 27.9 is exceeded once in 10^4.
  std::vector<double> count(7);
  for (uint64_t seed = 0; seed < 7000; ++seed) ++count[Sampler(7, seed).window(0)];
  double chi_square = 0;
  for (const double c : count) chi_square += (c - 1000) * (c - 1000) / 1000;
  EXPECT_LE(chi_square, 27.9);
}

TEST(Sampler, HugeCorpusCostsNothing) {
  const uint64_t n = (uint64_t{1} << 62) + 12345;
  const Sampler sampler(n, 3);
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 1000; ++i) {
    const uint64_t window = sampler.window(i);
    EXPECT_LT(window, n);
    seen.insert(window);
  }
  EXPECT_EQ(seen.size(), 1000u);
  EXPECT_THROW(Sampler(0, 1), Error);
}

}  // namespace
}  // namespace rodimus
