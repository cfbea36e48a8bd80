// What an optimizer step costs, found without running it: the real Model and Stepper on a Dry
// machine (kernels/exec.h). Takes milliseconds and no memory, for models of any size, and for GPUs
// on machines without one.
#pragma once

#include <vector>

#include "autograd/profile.h"
#include "kernels/dry.h"
#include "train/config/config.h"

namespace rodimus {

// Bytes on one rank at peak use, as counted by the allocator: without what the communicator and the
// system take in addition, and without the workspace of cuBLASLt.
struct TrainingMemory {
  int64_t parameters = 0;  // f32, and the bf16 copy when computing in bf16
  int64_t gradients = 0;
  int64_t moments = 0;
  int64_t activations = 0;  // made by forward, still needed by backward
  int64_t workspace = 0;    // gradients in flight and the scratch of kernels
  int64_t batch = 0;        // token ids of one micro-batch
  int64_t total() const {
    return parameters + gradients + moments + activations + workspace + batch;
  }
};

struct DryStep {
  int64_t parameters = 0;          // number of parameters
  std::vector<Profile::Row> rows;  // calls and costs of the step; seconds are meaningless
  TrainingMemory memory;
  std::vector<DryMemory::Part> parts;  // the same peak by name: activations by op

  // Matrix-product FLOPs of the step, without recomputation.
  double useful_flop() const;
};

// micro_batches of B sequences of T tokens each; `documents`: with the positions at which documents
// begin.
struct StepShape {
  int64_t B = 1, T = 1, micro_batches = 1;
  bool recompute = false, documents = false;
};

// model.vocab_size 0 means not known yet: parameters and FLOPs are then without embedding and head,
// memory as for one token.
DryStep dry_step(const ModelConfig& model, const Dry& machine, DType compute,
                 const StepShape& shape, const OptimizerConfig& optimizer = {});

// The Dry machine that stands for the machine of `exec`.
Dry described(const Exec& exec);

// useful_flop() of one forward pass, per token, averaged over the T positions.
double forward_flops_per_token(const ModelConfig& model, int64_t T);

}  // namespace rodimus
