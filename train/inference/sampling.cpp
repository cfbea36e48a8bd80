#include "train/inference/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace rodimus {

void validate(const SamplingConfig& config) {
  if (!(config.temperature >= 0 && std::isfinite(config.temperature)))
    fail("--temperature ", config.temperature, ": must be 0 (greedy) or above");
  if (config.top_k < 0) fail("--top-k ", config.top_k, ": must be at least 1, or 0 for all tokens");
  if (!(config.top_p > 0 && config.top_p <= 1))
    fail("--top-p ", config.top_p, ": must be in (0, 1]");
}

std::vector<TokenProbability> sampling_distribution(std::span<const float> logits,
                                                    const SamplingConfig& config) {
  CHECK(!logits.empty(), "sampling_distribution: no logits");
  const auto more_likely = [](const TokenProbability& a, const TokenProbability& b) {
    return a.probability != b.probability ? a.probability > b.probability : a.token < b.token;
  };
  const bool greedy = config.temperature == 0;  // then only one candidate is kept
  std::vector<TokenProbability> tokens;
  tokens.reserve(greedy ? 1 : logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const float x = logits[i];
    // True for NaN too.
    if (!(x <= std::numeric_limits<float>::max()))
      fail("the logit of token ", i, " is ", x, "; the model's parameters are damaged or diverged");
    if (!(x >= std::numeric_limits<float>::lowest())) continue;
    const TokenProbability token{static_cast<int32_t>(i), static_cast<double>(x)};
    if (!greedy || tokens.empty()) {
      tokens.push_back(token);
    } else if (more_likely(token, tokens.front())) {
      tokens.front() = token;
    }
  }
  if (tokens.empty()) fail("all logits are -inf; the model's parameters are damaged or diverged");

  if (greedy) return {{tokens.front().token, 1}};

  const size_t k = config.top_k > 0 ? static_cast<size_t>(config.top_k) : SIZE_MAX;
  if (k < tokens.size()) {
    std::nth_element(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(k), tokens.end(),
                     more_likely);
    tokens.resize(k);
  }
  std::sort(tokens.begin(), tokens.end(), more_likely);

  // Relative to the largest, so that nothing overflows and a tiny temperature becomes greedy.
  const double largest = tokens.front().probability;
  double sum = 0;
  for (TokenProbability& t : tokens) {
    t.probability = std::exp((t.probability - largest) / config.temperature);
    sum += t.probability;
  }
  if (config.top_p < 1) {
    double reached = 0;
    size_t count = 0;
    while (count < tokens.size() && reached < config.top_p * sum)
      reached += tokens[count++].probability;
    tokens.resize(std::max<size_t>(count, 1));
    sum = reached;
  }
  for (TokenProbability& t : tokens) t.probability /= sum;
  return tokens;
}

int32_t sample_token(std::span<const float> logits, const SamplingConfig& config, double u) {
  CHECK(u >= 0 && u < 1, "sample_token: u = ", u);
  const std::vector<TokenProbability> tokens = sampling_distribution(logits, config);
  double below = 0;
  for (const TokenProbability& t : tokens) {
    below += t.probability;
    if (u < below) return t.token;
  }
  // The sum may round to slightly less than one. Tokens of probability zero are never taken.
  for (auto t = tokens.rbegin(); t != tokens.rend(); ++t)
    if (t->probability > 0) return t->token;
  return tokens.front().token;
}

}  // namespace rodimus
