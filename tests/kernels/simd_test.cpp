// The vector functions compared with libm in double, over all exponents and at special values.
#include "kernels/cpu/simd.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/random.h"

namespace rodimus {

using namespace cpu;
namespace {

using simd::kLanes;
using simd::Vec;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <class F>
float apply(F f, float x) {
  return f(simd::broadcast(x))[kLanes - 1];
}

// Largest relative error of f over [low, high]; absolute below the smallest normal number.
template <class F, class G>
double worst_error(F f, G exact, double low, double high) {
  double worst = 0;
  for (int i = 0; i <= 200000; ++i) {
    const auto x = static_cast<float>(low + (high - low) * i / 200000);
    const double want = exact(static_cast<double>(x)), got = apply(f, x);
    const double error = std::abs(got - want) / std::max(std::abs(want), 0x1p-126);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

const auto exp_vec = [](Vec x) { return simd::exp(x); };
const auto exp_normal_vec = [](Vec x) { return simd::exp_normal(x); };
const auto log_vec = [](Vec x) { return simd::log(x); };
const auto softplus_vec = [](Vec x) { return simd::softplus(x); };
const auto sigmoid_vec = [](Vec x) { return simd::sigmoid(x); };
const auto silu_vec = [](Vec x) { return simd::silu(x); };

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

TEST(Simd, ElementaryFunctionsWithin2em7) {
  const auto exp64 = [](double x) { return std::exp(x); };
  EXPECT_LE(worst_error(exp_vec, exp64, -110, 88.7), 2e-7);
  EXPECT_LE(worst_error(exp_vec, exp64, -1, 1), 2e-7);
  EXPECT_LE(worst_error(exp_normal_vec, exp64, -87.3, 88.3), 2e-7);
  const auto log64 = [](double x) { return std::log(x); };
  EXPECT_LE(worst_error(log_vec, log64, 1e-3, 0.999), 2e-7);
  EXPECT_LE(worst_error(log_vec, log64, 0.99, 1.01), 2e-7);
  EXPECT_LE(worst_error(log_vec, log64, 1, 1e6), 2e-7);
  // exp and one more function or quotient: their errors add up.
  EXPECT_LE(worst_error(softplus_vec, softplus, -100, 100), 3e-7);
  EXPECT_LE(worst_error(softplus_vec, softplus, -3, 3), 3e-7);
  EXPECT_LE(worst_error(sigmoid_vec, sigmoid, -87, 100), 3e-7);
  EXPECT_LE(worst_error(
                silu_vec, [](double x) { return x * sigmoid(x); }, -80, 80),
            3e-7);
  const auto value = [](Vec x) { return simd::sigmoid_pair(x).value; };
  const auto complement = [](Vec x) { return simd::sigmoid_pair(x).complement; };
  EXPECT_LE(worst_error(value, sigmoid, -87, 100), 3e-7);
  EXPECT_LE(worst_error(
                complement, [](double x) { return sigmoid(-x); }, -100, 87),
            3e-7);
}

TEST(Simd, LogOfEveryPowerOfTwo) {
  for (int e = -149; e < 128; ++e) {
    const float x = std::ldexp(1.0f, e);
    EXPECT_NEAR(apply(log_vec, x), e * std::log(2.0), 2e-7 * std::abs(e * std::log(2.0))) << e;
  }
}

TEST(Simd, SpecialValues) {
  EXPECT_EQ(apply(exp_vec, 0), 1);
  EXPECT_EQ(apply(exp_vec, -kInf), 0);
  EXPECT_EQ(apply(exp_vec, -1e30f), 0);
  EXPECT_EQ(apply(exp_vec, kInf), kInf);
  EXPECT_EQ(apply(exp_vec, 88.8f), kInf);
  EXPECT_EQ(apply(exp_normal_vec, 0), 1);
  EXPECT_EQ(apply(exp_normal_vec, -kInf), 0);
  EXPECT_EQ(apply(exp_normal_vec, -88.1f), 0);
  EXPECT_EQ(apply(exp_normal_vec, kInf), kInf);
  EXPECT_EQ(apply(log_vec, 1), 0);
  EXPECT_EQ(apply(log_vec, 0), -kInf);
  EXPECT_EQ(apply(log_vec, kInf), kInf);
  EXPECT_TRUE(std::isnan(apply(log_vec, -1)));
  EXPECT_TRUE(std::isnan(apply(log_vec, -kInf)));
  EXPECT_EQ(apply(sigmoid_vec, -kInf), 0);
  EXPECT_EQ(apply(sigmoid_vec, kInf), 1);
  EXPECT_EQ(apply(silu_vec, -1000), 0);
  EXPECT_EQ(apply(softplus_vec, -1000), 0);
  EXPECT_EQ(apply(softplus_vec, 1000), 1000);
}

TEST(Simd, NanComesThrough) {
  EXPECT_TRUE(std::isnan(apply(exp_vec, kNan)));
  EXPECT_TRUE(std::isnan(apply(exp_normal_vec, kNan)));
  EXPECT_TRUE(std::isnan(apply([](Vec x) { return simd::log_normal(x); }, kNan)));
  EXPECT_TRUE(std::isnan(apply(log_vec, kNan)));
  EXPECT_TRUE(std::isnan(apply(softplus_vec, kNan)));
  EXPECT_TRUE(std::isnan(apply(sigmoid_vec, kNan)));
  EXPECT_TRUE(std::isnan(apply(silu_vec, kNan)));
  EXPECT_TRUE(std::isnan(apply([](Vec x) { return simd::sigmoid_pair(x).value; }, kNan)));
  EXPECT_TRUE(std::isnan(apply([](Vec x) { return simd::sigmoid_pair(x).complement; }, kNan)));
}

// Loads and stores of every tail length: the right lanes, nothing touched after them, zeros read.
TEST(Simd, TailsAndRounding) {
  for (int n = 1; n <= 3 * kLanes; ++n) {
    const auto source = testing::normal(n, 5);
    const auto x = testing::cast<float>(source);
    std::vector<float> copy(static_cast<size_t>(n) + 1, 7);
    std::vector<bf16> half(static_cast<size_t>(n) + 1, bf16(7.0f)), again = half;
    float sum = 0;
    simd::for_lanes(n, [&](int64_t i, auto lanes) {
      const Vec v = simd::load(x.data() + i, lanes);
      sum += simd::reduce_add(v);
      simd::store(copy.data() + i, v, lanes);
      simd::store(half.data() + i, v, lanes);
      simd::store(again.data() + i, simd::load(half.data() + i, lanes), lanes);
    });
    double want = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      want += x[i];
      EXPECT_EQ(copy[i], x[i]);
      EXPECT_EQ(half[i].bits, bf16(x[i]).bits);
      EXPECT_EQ(again[i].bits, half[i].bits);
    }
    EXPECT_EQ(copy.back(), 7);
    EXPECT_EQ(to_f32(half.back()), 7);
    EXPECT_NEAR(sum, want, 1e-5);
  }
}

TEST(Simd, TheLargestLaneIsFoundInEveryPlace) {
  for (int place = 0; place < kLanes; ++place) {
    Vec x = simd::broadcast(-kInf);
    for (int i = 0; i < kLanes; ++i) x[i] = i == 0 ? -kInf : -2.0f - static_cast<float>(i);
    x[place] = -1.5f;
    EXPECT_EQ(simd::reduce_max(x), -1.5f) << place;
  }
  EXPECT_EQ(simd::reduce_max(simd::broadcast(-kInf)), -kInf);
}

TEST(Simd, Bf16RoundingMatchesTheScalarOnEveryPattern) {
#if defined(__AVX512BF16__)
  constexpr bool kDenormalsAreZero = true;
#else
  constexpr bool kDenormalsAreZero = false;
#endif
  for (uint64_t high = 0; high < 0x10000; ++high) {
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float x = std::bit_cast<float>(static_cast<uint32_t>(high << 16) | low);
      const uint16_t got = simd::narrow(simd::broadcast(x))[0];
      // AVX512_BF16 flushes a denormal to zero with the same sign.
      if (kDenormalsAreZero && std::fpclassify(x) == FP_SUBNORMAL) {
        ASSERT_EQ(got, high & 0x8000u) << std::hex << high << low;
      } else {
        ASSERT_EQ(got, bf16(x).bits) << std::hex << high << low;
      }
    }
  }
}

}  // namespace
}  // namespace rodimus
