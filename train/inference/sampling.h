// From logits to the next token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace rodimus {

struct SamplingConfig {
  double temperature = 1;  // logits are divided by it; 0 = greedy: the most likely token
  int64_t top_k = 0;       // only the k most likely tokens; 0 = all
  double top_p = 1;        // of those, the fewest whose probabilities reach p; always at least one
};

// Throws Error naming the flag when a value is impossible.
void validate(const SamplingConfig& config);

struct TokenProbability {
  int32_t token;
  double probability;
};

// The possible tokens, most likely first, ties by smaller id; probabilities sum to one. Applies
// temperature, then top_k, then top_p to what top_k left. Throws Error if a logit is NaN or +inf,
// or none is finite; -inf means an impossible token.
std::vector<TokenProbability> sampling_distribution(std::span<const float> logits,
                                                    const SamplingConfig& config);

// The token whose part of [0, 1), laid out in the order above, contains u.
int32_t sample_token(std::span<const float> logits, const SamplingConfig& config, double u);

}  // namespace rodimus
