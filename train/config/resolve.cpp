#include "train/config/resolve.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/words.h"
#include "kernels/gemm.h"

namespace rodimus {
namespace {

std::string list_divisors(int64_t n) {
  std::vector<int64_t> divisors;
  for (int64_t i = 1; i * i <= n; ++i) {
    if (n % i != 0) continue;
    divisors.push_back(i);
    if (i * i != n) divisors.push_back(n / i);
  }
  std::sort(divisors.begin(), divisors.end());
  std::vector<std::string> words;
  for (const int64_t divisor : divisors) words.push_back(std::to_string(divisor));
  return join_or(words);
}

int64_t resolve_micro_batch(const RunConfig& run, int64_t ranks) {
  if (run.global_batch % ranks != 0) {
    const int64_t below = run.global_batch / ranks * ranks, above = below + ranks;
    fail("run.global_batch = ", run.global_batch, " is not divisible by ", ranks, " ranks: use ",
         below > 0 ? concat(below, " or ") : "", above, ", or start ",
         list_divisors(run.global_batch), " ranks");
  }
  const int64_t per_rank = run.global_batch / ranks;
  if (run.micro_batch == 0) return per_rank;
  if (per_rank % run.micro_batch != 0) {
    fail("run.micro_batch = ", run.micro_batch, " does not divide the ", per_rank,
         " sequences of each rank (run.global_batch = ", run.global_batch, " over ", ranks,
         ranks == 1 ? " rank" : " ranks", "): use ", list_divisors(per_rank));
  }
  return run.micro_batch;
}

int64_t resolve_vocabulary(int64_t written, int64_t found) {
  if (written == 0 && found == 0)
    fail("model.vocab_size is not set and neither data.tokenizer nor the shards give it: set it");
  return written > 0 ? written : found;
}

}  // namespace

ResolvedConfig resolve(const Config& written, const Circumstances& found) {
  CHECK(found.ranks >= 1, "resolve: ", found.ranks, " ranks");
  ResolvedConfig config(written);
  config.ranks = found.ranks;
  config.threads = found.threads;
  config.device = found.device;
  config.compute = resolve_compute(written.run.compute, found.device);
  config.run.device = name_of(config.device);
  config.run.compute = name_of(config.compute);
  config.run.micro_batch = resolve_micro_batch(written.run, found.ranks);
  config.model.vocab_size = resolve_vocabulary(written.model.vocab_size, found.vocab_size);
  config.model.validate();
  return config;
}

DType resolve_compute(const std::string& compute, Device device) {
  if (compute == "f32") return DType::f32;
  if (compute == "bf16") return DType::bf16;
  if (compute != "auto")
    fail("run.compute = \"", compute, "\": must be \"f32\", \"bf16\" or \"auto\"");
  return has_native_bf16(device) ? DType::bf16 : DType::f32;
}

bool has_native_bf16(Device device) { return device == Device::cuda || cpu_multiplies_bf16(); }

std::string describe_compute(const std::string& compute, Device device) {
  const std::string chosen = name_of(resolve_compute(compute, device));
  if (device == Device::cuda) return chosen;
  const bool native = has_native_bf16(device);
  if (compute == "auto")
    return chosen +
           (native ? " (auto: this CPU has AVX512_BF16)" : " (auto: this CPU has no AVX512_BF16)");
  return chosen + (chosen == "bf16" && !native ? " (no native bf16: computed in f32)" : "");
}

}  // namespace rodimus
