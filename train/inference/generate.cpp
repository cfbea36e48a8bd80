#include "train/inference/generate.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/progress.h"
#include "kernels/philox.h"
#include "train/signals.h"

namespace rodimus {
namespace {

using Clock = std::chrono::steady_clock;

// Logits (vocab) after `ids`, on the host.
Tensor feed(Context& ctx, Model& model, std::span<const int32_t> ids, ModelState& state) {
  const Tensor batch = to_device(ctx.exec, ids, {1, static_cast<int64_t>(ids.size())});
  return on_host(ctx.exec, model.next_logits(ctx, batch, state));
}

}  // namespace

GenerateTimes generate(Context& ctx, Model& model, std::span<const int32_t> prompt,
                       const GenerateConfig& config, const std::function<bool(int32_t)>& on_token) {
  constexpr uint64_t kStream = 0;  // of random numbers: one stream per sequence
  validate(config.sampling);
  CHECK(config.prefill_chunk >= 1, "generate: prefill_chunk ", config.prefill_chunk);
  const int64_t model_vocab = model.config().vocab_size;
  if (prompt.empty()) fail("the prompt is empty; give at least one token to continue");
  for (const int32_t id : prompt) {
    if (id < 0 || id >= model_vocab)
      fail("token ", id, " of the prompt is not in the model's vocabulary [0, ", model_vocab, ")");
  }
  CHECK(config.vocab <= model_vocab, "generate: ", config.vocab, " of ", model_vocab, " tokens");
  const auto vocab = static_cast<size_t>(config.vocab > 0 ? config.vocab : model_vocab);

  GenerateTimes times;
  auto begin = Clock::now();
  ModelState state;
  Tensor logits;
  const auto chunk = static_cast<size_t>(config.prefill_chunk);
  for (size_t at = 0; at < prompt.size() && !stop_requested(); at += chunk) {
    const auto part = prompt.subspan(at, std::min(chunk, prompt.size() - at));
    logits = feed(ctx, model, part, state);
    times.prompt_tokens += static_cast<int64_t>(part.size());
  }
  times.prompt_s = seconds_since(begin);

  begin = Clock::now();
  while (times.tokens < config.max_tokens && !stop_requested()) {
    const std::span<const float> known(std::as_const(logits).data<float>(), vocab);
    const double u = random_unit(config.seed, kStream, static_cast<uint64_t>(times.tokens));
    const int32_t token = sample_token(known, config.sampling, u);
    if (token == config.stop) break;
    ++times.tokens;
    if (!on_token(token) || times.tokens == config.max_tokens) break;
    logits = feed(ctx, model, {&token, 1}, state);
  }
  times.tokens_s = seconds_since(begin);
  return times;
}

}  // namespace rodimus
