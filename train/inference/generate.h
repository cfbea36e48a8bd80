// Text generation: reads the prompt in chunks, then generates token by token from the recurrent
// state.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "layers/model.h"
#include "train/inference/sampling.h"

namespace rodimus {

struct GenerateConfig {
  SamplingConfig sampling;
  uint64_t seed = 1;
  int64_t max_tokens = 128;
  int64_t vocab = 0;            // ids the tokenizer knows; only these are sampled. 0: all
  int32_t stop = -1;            // ends the generation and is not reported; -1: none
  int64_t prefill_chunk = 512;  // prompt tokens per forward pass: bounds the activations
};

struct GenerateTimes {
  int64_t prompt_tokens = 0, tokens = 0;  // tokens read and generated
  double prompt_s = 0, tokens_s = 0;
};

// Continues `prompt` (at least one id, all below the model's vocabulary). on_token receives each
// new id and returns false to stop; so does stop_requested() (train/signals.h), also between chunks
// of the prompt. The i-th token depends only on (prompt, sampling, seed, i).
GenerateTimes generate(Context& ctx, Model& model, std::span<const int32_t> prompt,
                       const GenerateConfig& config, const std::function<bool(int32_t)>& on_token);

}  // namespace rodimus
