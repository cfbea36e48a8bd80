// Philox: published known answers (Random123's kat_vectors), then the two distributions.
#include "kernels/philox.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/support/device.h"

namespace rodimus {
namespace {

using Words = std::array<uint32_t, 4>;

TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

using testing::Array;
using testing::backend;
using testing::Backend;
using testing::kDevice;

constexpr int64_t kCount = kDevice == Device::cuda ? 1 << 14 : 1 << 20;

struct Moments {
  double mean = 0, variance = 0, skew = 0, kurtosis = 0, lag = 0;
};

// Of (x - centre) / scale; lag is the correlation of neighbours.
Moments moments(const std::vector<float>& x, double centre, double scale) {
  Moments m;
  double before = 0;
  for (const float value : x) {
    const double z = (value - centre) / scale;
    m.mean += z, m.variance += z * z, m.skew += z * z * z, m.kurtosis += z * z * z * z;
    m.lag += z * before;
    before = z;
  }
  const auto n = static_cast<double>(x.size());
  return {m.mean / n, m.variance / n, m.skew / n, m.kurtosis / n, m.lag / n};
}

std::vector<float> normals(int64_t n, uint64_t seed, uint64_t stream, int threads) {
  Array<float> x(n);
  Backend exec = backend(threads);
  random_normal(exec, x.data(), n, 0.5f, seed, stream);
  return x.host();
}

std::vector<float> uniforms(int64_t n, uint64_t seed, uint64_t stream, int threads) {
  Array<float> x(n);
  Backend exec = backend(threads);
  random_uniform(exec, x.data(), n, -3, 5, seed, stream);
  return x.host();
}

// Five standard errors of each sample moment over the draws: sqrt(variance of z^k / n).
TEST(Philox, NormalMoments) {
  const auto m = moments(normals(kCount, 1, 2, 2), 0, 0.5);
  const double error = 5 / std::sqrt(static_cast<double>(kCount));
  EXPECT_NEAR(m.mean, 0, error);
  EXPECT_NEAR(m.variance, 1, error * std::sqrt(2));
  EXPECT_NEAR(m.skew, 0, error * std::sqrt(15));
  EXPECT_NEAR(m.kurtosis, 3, error * std::sqrt(96));
  EXPECT_NEAR(m.lag, 0, error);
}

TEST(Philox, UniformMomentsAndRange) {
  const auto x = uniforms(kCount, 1, 2, 2);
  const auto m = moments(x, 1, 8 / std::sqrt(12));
  const double error = 5 / std::sqrt(static_cast<double>(kCount));
  EXPECT_NEAR(m.mean, 0, error);
  EXPECT_NEAR(m.variance, 1, error);  // of z^2: 0.8
  EXPECT_NEAR(m.kurtosis, 1.8, 2 * error);
  EXPECT_NEAR(m.lag, 0, error);
  const auto [least, most] = std::minmax_element(x.begin(), x.end());
  EXPECT_GE(*least, -3);
  EXPECT_LT(*most, 5);
}

TEST(Philox, HighIsNeverReachedByRounding) {
  Array<float> x_device(kCount);
  Backend exec = backend();
  const float low = 1, high = std::nextafter(std::nextafter(1.0f, 2.0f), 2.0f);
  random_uniform(exec, x_device.data(), kCount, low, high, 5, 6);
  const std::vector<float> x = x_device.host();
  EXPECT_GE(*std::min_element(x.begin(), x.end()), low);
  EXPECT_LT(*std::max_element(x.begin(), x.end()), high);
}

// Element i is a function of (seed, stream, i) only: not of the length, the threads, or other
// streams.
TEST(Philox, ElementsAreIndependentOfLengthAndThreads) {
  for (const auto& draw : {normals, uniforms}) {
    const auto whole = draw(20001, 7, 8, 1);
    EXPECT_EQ(whole, draw(20001, 7, 8, 3));
    for (const int64_t n : {0, 1, 2, 3, 5, 1000}) {
      const auto part = draw(n, 7, 8, 1);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << n;
    }
    EXPECT_NE(whole, draw(20001, 8, 8, 1));
    EXPECT_NE(whole, draw(20001, 7, 9, 1));
    EXPECT_NE(whole, draw(20001, 7 + (uint64_t{1} << 32), 8, 1));
    EXPECT_NE(whole, draw(20001, 7, 8 + (uint64_t{1} << 32), 1));
  }
}

// A run that starts on a GPU has the CPU's initial parameters, up to the last bit of a sine or
// logarithm in double: at most one unit in the last place of f32.
TEST(Philox, EveryBackendDrawsTheSame) {
  std::vector<float> want(1003);
  Cpu cpu{1};
  random_normal(cpu, want.data(), 1003, 0.5f, 11, 12);
  const auto got = normals(1003, 11, 12, 1);
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_LE(std::abs(got[i] - want[i]), std::abs(want[i]) * 0x1p-23f) << i;
  random_uniform(cpu, want.data(), 1003, -3, 5, 11, 12);
  EXPECT_EQ(uniforms(1003, 11, 12, 1), want);
}

TEST(Philox, UnitIsUniform) {
  double sum = 0, squares = 0;
  constexpr int kDraws = 100000;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const double u = random_unit(3, 4, i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u, squares += u * u;
  }
  const double error = 5 / std::sqrt(static_cast<double>(kDraws));
  EXPECT_NEAR(sum / kDraws, 0.5, error * std::sqrt(1.0 / 12));
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, error * std::sqrt(4.0 / 45));
  EXPECT_NE(random_unit(3, 4, 0), random_unit(3, 5, 0));
}

}  // namespace
}  // namespace rodimus
