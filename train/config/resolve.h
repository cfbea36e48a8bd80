// The only place that decides what the configuration leaves open: "auto", 0, and defaults that
// depend on the machine or the data.
#pragma once

#include <string>

#include "kernels/exec.h"
#include "train/config/config.h"

namespace rodimus {

// What is known from the machine, the launcher and the data.
struct Circumstances {
  Device device = Device::cpu;  // where the ranks compute
  int ranks = 1;
  int threads = 0;         // CPU threads of this rank; 0 on a GPU
  int64_t vocab_size = 0;  // of the tokenizer or the shards; 0: unknown
};

// A configuration that leaves nothing open: model.vocab_size and run.micro_batch are above 0, and
// run.compute and run.device are not "auto" but match `compute` and `device`. run.threads stays as
// written, because the number of threads depends on each machine. Only resolve() makes one; a run
// uses it and its checkpoints store it.
struct ResolvedConfig : Config {
  DType compute = DType::f32;
  Device device = Device::cpu;
  int ranks = 1;
  int threads = 0;

  int64_t micro_batches() const { return run.global_batch / ranks / run.micro_batch; }  // per rank
  int64_t tokens_per_step() const { return run.global_batch * data.seq_len; }

 private:
  explicit ResolvedConfig(const Config& written) : Config(written) {}
  friend ResolvedConfig resolve(const Config& written, const Circumstances& found);
};

// Throws Error naming key, value and what is allowed: for an unknown vocabulary, an impossible
// model, or a batch that the ranks cannot share.
ResolvedConfig resolve(const Config& written, const Circumstances& found);

// Throws Error unless `compute` is "f32", "bf16" or "auto". auto: bf16 on devices with native bf16
// products (GPUs, and CPUs with AVX512_BF16), otherwise f32.
DType resolve_compute(const std::string& compute, Device device);

// Whether the device has native bf16 products.
bool has_native_bf16(Device device);

// "f32", and why: "f32 (auto: this CPU has no AVX512_BF16)". `compute` as in resolve_compute().
std::string describe_compute(const std::string& compute, Device device);

}  // namespace rodimus
