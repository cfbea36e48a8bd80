// The one place where it is decided what a run computes with: whatever the configuration leaves
// open, as "auto", 0 or a default that follows from elsewhere.
#pragma once

#include <string>

#include "kernels/exec.h"
#include "train/config/config.h"

namespace rodimus {

// What the machine, the launcher and the data say.
struct Circumstances {
  Device device = Device::cpu;  // that the ranks compute on
  int ranks = 1;
  int threads = 0;         // that this rank computes with on the CPU; 0 on a GPU
  int64_t vocab_size = 0;  // tokens of the tokenizer or the shards; 0: nobody says
};

// A configuration in which nothing is open: model.vocab_size and run.micro_batch are above 0,
// run.compute and run.device are not "auto" but what `compute` and `device` say. run.threads stays
// as written: how many there are is a matter of each machine. Only resolve() makes one; it is what
// a run is given and what its checkpoints store.
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

// Throws Error that names key, value and what is possible: no vocabulary, a model that cannot be, a
// batch that the ranks cannot share.
ResolvedConfig resolve(const Config& written, const Circumstances& found);

// Throws Error unless `compute` is "f32", "bf16" or "auto". auto: bf16 where the device multiplies
// it in hardware (GPUs do, CPUs with AVX512_BF16), f32 elsewhere.
DType resolve_compute(const std::string& compute, Device device);

// Whether the device multiplies bf16 in hardware.
bool has_native_bf16(Device device);

// "f32", and why: "f32 (auto: this CPU has no AVX512_BF16)". `compute` as in resolve_compute().
std::string describe_compute(const std::string& compute, Device device);

}  // namespace rodimus
