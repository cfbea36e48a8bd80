#include "train/inference/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

using ::rodimus::testing::uniform;

const std::vector<float> kLogits = {0.0f, 2.0f, -1.0f, 1.0f, 2.0f};
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<int32_t> tokens_of(const SamplingConfig& config) {
  std::vector<int32_t> ids;
  for (const auto& t : sampling_distribution(kLogits, config)) ids.push_back(t.token);
  return ids;
}

TEST(Sampling, DistributionIsTheSoftmax) {
  for (const double temperature : {0.5, 1.0, 3.0}) {
    double sum = 0;
    for (const float x : kLogits) sum += std::exp(x / temperature);
    const auto got = sampling_distribution(kLogits, {.temperature = temperature});
    ASSERT_EQ(got.size(), 5u);
    EXPECT_EQ(got[0].token, 1);  // ties: the smaller id first
    EXPECT_EQ(got[1].token, 4);
    for (const auto& t : got) {
      const double want = std::exp(kLogits[static_cast<size_t>(t.token)] / temperature) / sum;
      EXPECT_NEAR(t.probability, want, 1e-15);  // a few roundings in double
    }
  }
}

TEST(Sampling, FrequenciesFollowTheProbabilities) {
  const int64_t n = 100000;
  std::vector<double> count(kLogits.size());
  for (const double u : uniform(n, 1, 0, 1))
    count[static_cast<size_t>(sample_token(kLogits, {}, u))] += 1;
  for (const auto& t : sampling_distribution(kLogits, {})) {
    const double p = t.probability, deviation = std::sqrt(static_cast<double>(n) * p * (1 - p));
    // Five standard deviations: chance fails this once in two million, and the draws are fixed.
    EXPECT_NEAR(count[static_cast<size_t>(t.token)], p * static_cast<double>(n), 5 * deviation);
  }
}

TEST(Sampling, GreedyTakesTheFirstLargest) {
  for (const double u : {0.0, 0.5, 0.999999}) {
    EXPECT_EQ(sample_token(kLogits, {.temperature = 0}, u), 1);
    EXPECT_EQ(sample_token(kLogits, {.top_k = 1}, u), 1);
    EXPECT_EQ(sample_token(kLogits, {.top_p = 1e-9}, u), 1);
  }
  // A temperature so small that exp() underflows for all but the largest.
  EXPECT_EQ(sample_token(std::vector<float>{1, 3, 2}, {.temperature = 1e-300}, 0.999), 1);
}

TEST(Sampling, TopKKeepsTheMostLikely) {
  EXPECT_EQ(tokens_of({.top_k = 2}), (std::vector<int32_t>{1, 4}));
  EXPECT_EQ(tokens_of({.top_k = 3}), (std::vector<int32_t>{1, 4, 3}));
  EXPECT_EQ(tokens_of({.top_k = 5}), (std::vector<int32_t>{1, 4, 3, 0, 2}));
  EXPECT_EQ(tokens_of({.top_k = 100}).size(), 5u);
  double sum = 0;
  for (const auto& t : sampling_distribution(kLogits, {.top_k = 3})) sum += t.probability;
  EXPECT_NEAR(sum, 1, 1e-15);
}

TEST(Sampling, TopPKeepsTheFewestThatReachP) {
  // Probabilities of the five: 0.392, 0.392, 0.144, 0.053, 0.020.
  EXPECT_EQ(tokens_of({.top_p = 0.39}).size(), 1u);
  EXPECT_EQ(tokens_of({.top_p = 0.40}).size(), 2u);
  EXPECT_EQ(tokens_of({.top_p = 0.78}).size(), 2u);
  EXPECT_EQ(tokens_of({.top_p = 0.79}).size(), 3u);
  EXPECT_EQ(tokens_of({.top_p = 0.99}).size(), 5u);
  EXPECT_EQ(tokens_of({.top_p = 1}).size(), 5u);
  // Applied to what top_k left: each of two equal tokens has one half.
  EXPECT_EQ(tokens_of({.top_k = 2, .top_p = 0.5}).size(), 1u);
  EXPECT_EQ(tokens_of({.top_k = 2, .top_p = 0.51}).size(), 2u);
}

TEST(Sampling, EveryUGetsATokenThatCanCome) {
  const double last = std::nextafter(1.0, 0.0);
  const std::vector<float> logits = {-kInf, 0.1f, 0.2f, -200.0f, 0.3f};
  for (const double u : {0.0, 0.3, 0.9, last}) {
    const int32_t token = sample_token(logits, {}, u);
    EXPECT_TRUE(token == 1 || token == 2 || token == 4) << token;
  }
  EXPECT_EQ(sample_token(std::vector<float>{-kInf, 5}, {}, last), 1);
  EXPECT_THROW(sample_token(logits, {}, 1.0), Error);
}

TEST(Sampling, DamagedLogitsAreErrors) {
  const auto rejects = [](std::vector<float> logits, const char* part) {
    for (const double temperature : {0.0, 1.0}) {
      try {
        sampling_distribution(logits, {.temperature = temperature});
        ADD_FAILURE() << part;
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
      }
    }
  };
  rejects({0, NAN, 1}, "token 1 is nan");
  rejects({0, 1, kInf}, "token 2 is inf");
  rejects({-kInf, -kInf}, "all logits are -inf");
}

TEST(Sampling, ImpossibleSettingsAreErrors) {
  EXPECT_NO_THROW(validate({}));
  EXPECT_NO_THROW(validate({.temperature = 0, .top_k = 1, .top_p = 1e-6}));
  EXPECT_THROW(validate({.temperature = -1}), Error);
  EXPECT_THROW(validate({.temperature = NAN}), Error);
  EXPECT_THROW(validate({.temperature = HUGE_VAL}), Error);
  EXPECT_THROW(validate({.top_k = -1}), Error);
  EXPECT_THROW(validate({.top_p = 0}), Error);
  EXPECT_THROW(validate({.top_p = 1.01}), Error);
  EXPECT_THROW(validate({.top_p = NAN}), Error);
}

}  // namespace
}  // namespace rodimus
