// The emulator's tensor cores against sums worked out by hand: 25 fraction bits and all products at
// once (H100), 24 and two halves (A100). Every element of a result sums the same terms.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/simt/engine.h"

namespace {

using simt::TensorCore;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Product {
  float a, b;
};

// c + the products, zeros filling up to K.
template <int K>
float sum(TensorCore core, float c, const std::vector<Product>& products) {
  simt::config.tensor_core = core;
  float a[16][K] = {}, b[K][8] = {}, sums[16][8];
  for (size_t k = 0; k < products.size(); ++k) {
    for (auto& row : a) row[k] = products[k].a;
    for (float& element : b[k]) element = products[k].b;
  }
  for (auto& row : sums) {
    for (float& element : row) element = c;
  }
  simt::add_products(sums, a, b);
  for (const auto& row : sums) {
    for (const float element : row) {
      if (std::isnan(sums[0][0])) {
        EXPECT_TRUE(std::isnan(element));
      } else {
        EXPECT_EQ(element, sums[0][0]);
      }
    }
  }
  return sums[0][0];
}
float h100(float c, const std::vector<Product>& products) {
  return sum<16>(TensorCore::h100, c, products);
}
float a100(float c, const std::vector<Product>& products) {
  return sum<16>(TensorCore::a100, c, products);
}
std::vector<Product> times(size_t count, Product product) {
  return std::vector<Product>(count, product);
}
std::vector<Product> operator+(std::vector<Product> x, const std::vector<Product>& y) {
  x.insert(x.end(), y.begin(), y.end());
  return x;
}

TEST(TensorSums, KeepWhatFits) {
  EXPECT_EQ(h100(0.25f, times(16, {1.5f, -3.0f})), 0.25f - 72);
  EXPECT_EQ(a100(0.25f, times(16, {1.5f, -3.0f})), 0.25f - 72);
  EXPECT_EQ(h100(-0.0f, {}), 0);
}

TEST(TensorSums, CutEachTermBelowTheLargest) {
  // 16 * 2^-25 = 2^-21 beside 1: the 25th bit is there on an H100, not on an A100.
  EXPECT_EQ(h100(1, times(16, {0x1p-12f, 0x1p-13f})), 1 + 0x1p-21f);
  EXPECT_EQ(a100(1, times(16, {0x1p-12f, 0x1p-13f})), 1);
  EXPECT_EQ(a100(1, times(16, {0x1p-12f, 0x1p-12f})), 1 + 0x1p-20f);
  EXPECT_EQ(h100(1, times(16, {0x1p-13f, 0x1p-13f})), 1);
  // The largest may be a product.
  EXPECT_EQ(h100(0x1p-26f, std::vector<Product>{{1, 1}} + times(15, {0x1p-13f, 0x1p-13f})), 1);
}

TEST(TensorSums, CutTowardsZero) {
  // 1.5 units of the last place lose the half, with either sign and beside either sign.
  EXPECT_EQ(h100(1, times(16, {1.5f, 0x1p-25f})), 1 + 0x1p-21f);
  EXPECT_EQ(h100(-1, times(16, {1.5f, -0x1p-25f})), -1 - 0x1p-21f);
  EXPECT_EQ(h100(1, times(16, {1.5f, -0x1p-25f})), 1 - 0x1p-21f);
  // The sum as well: 0.75 of a unit of the result is lost, where rounding would give a unit.
  EXPECT_EQ(h100(1, {{1.5f, 0x1p-24f}}), 1);
  EXPECT_EQ(h100(-1, {{1.5f, -0x1p-24f}}), -1);
  EXPECT_EQ(h100(2, {{-1.5f, 0x1p-24f}}), 2 - 0x1p-23f);
}

TEST(TensorSums, AlignByTheExponentsOfTheFactors) {
  // 1.5 * 1.5 = 2.25 counts as of exponent 0, so 15 * 2^-25 beside it is kept: 1.875 units of 2.25.
  const std::vector<Product> products =
      std::vector<Product>{{1.5f, 1.5f}} + times(15, {1, 0x1p-25f});
  EXPECT_EQ(h100(0, products), 2.25f + 0x1p-22f);
  EXPECT_EQ(h100(2.25f, times(15, {1, 0x1p-25f})), 2.25f);  // an accumulator's exponent is 1
}

TEST(TensorSums, OfAnA100AreMadeInTwoHalves) {
  // 1 - 1 in the first half: beside it 2^-30 is lost, in the second half it is not.
  const std::vector<Product> products =
      std::vector<Product>{{1, -1}} + times(15, {0x1p-15f, 0x1p-15f});
  EXPECT_EQ(a100(1, products), 8 * 0x1p-30f);
  EXPECT_EQ(h100(1, products), 0);
}

TEST(TensorSums, OfTf32) {
  const std::vector<Product> products = times(8, {1 + 0x1p-10f, 0x1p-25f});
  EXPECT_EQ(sum<8>(TensorCore::h100, 1, products), 1 + 0x1p-22f);
  EXPECT_EQ(sum<8>(TensorCore::a100, 1, products), 1);
  const std::vector<Product> cancel =
      std::vector<Product>{{1, -1}} + times(7, {0x1p-15f, 0x1p-15f});
  EXPECT_EQ(sum<8>(TensorCore::a100, 1, cancel), 4 * 0x1p-30f);
  EXPECT_EQ(sum<8>(TensorCore::h100, 1, cancel), 0);
}

TEST(TensorSums, AtTheEndsOfTheRange) {
  for (const auto sum_of : {h100, a100}) {
    EXPECT_EQ(sum_of(0, {{0x1p-100f, 0x1p-30f}}), 0x1p-130f);  // subnormal numbers come out
    EXPECT_EQ(sum_of(0, {{0x1p-133f, 1}}), 0x1p-133f);         // and go in
    EXPECT_EQ(sum_of(0x1p-149f, {{0x1p-133f, 0x1p-16f}}), 0x1p-148f);
    EXPECT_EQ(sum_of(0, {{1.5f * 0x1p-75f, -0x1p-74f}}), -0x1p-149f);  // the half is cut
    EXPECT_EQ(sum_of(0, {{0x1p-133f, 0x1p-133f}}), 0);
    EXPECT_EQ(sum_of(0x1p127f, {{0x1p120f, 0x1p7f}}), kInfinity);
    EXPECT_EQ(sum_of(0, {{0x1p127f, 0x1p127f}}), kInfinity);
    // Too large for a float, but not the sum.
    EXPECT_EQ(sum_of(0, {{0x1p100f, 0x1p100f}, {0x1p100f, -0x1p100f}, {1, 1}}), 0);
    EXPECT_EQ(sum_of(-kInfinity, {{1, 1}}), -kInfinity);
    EXPECT_EQ(sum_of(1, {{kInfinity, 0x1p-120f}}), kInfinity);
    EXPECT_TRUE(std::isnan(sum_of(1, {{kInfinity, 0}})));
    EXPECT_TRUE(std::isnan(sum_of(-kInfinity, {{kInfinity, 1}})));
    EXPECT_TRUE(std::isnan(sum_of(std::nanf(""), {{1, 1}})));
    EXPECT_TRUE(std::isnan(sum_of(1, {{1, std::nanf("")}})));
  }
}

}  // namespace
