// What an optimizer step costs, found out without doing it: the real Model and Stepper on a Dry
// machine (kernels/exec.h). Takes milliseconds and no memory, for models of any size, for GPUs on
// machines without one.
#pragma once

#include <vector>

#include "autograd/profile.h"
#include "kernels/dry.h"
#include "train/config/config.h"

namespace rodimus {

// Bytes on one rank at the moment when most is in use, as the allocator counts them. What the
// communicator and the system take on top is not counted, nor the workspace of cuBLASLt.
struct TrainingMemory {
  int64_t parameters = 0;  // f32, and the bf16 copy when computing in bf16
  int64_t gradients = 0;
  int64_t moments = 0;
  int64_t activations = 0;  // what forward made and backward still needs
  int64_t workspace = 0;    // gradients in flight and the scratch of kernels
  int64_t batch = 0;        // token ids of one micro-batch
  int64_t total() const {
    return parameters + gradients + moments + activations + workspace + batch;
  }
};

struct DryStep {
  int64_t parameters = 0;          // how many
  std::vector<Profile::Row> rows;  // calls and costs of the step; seconds say nothing
  TrainingMemory memory;
  std::vector<DryMemory::Part> parts;  // the same peak by name: activations by op

  // Of the step: FLOPs of matrix products without those of recomputation.
  double useful_flop() const;
};

// micro_batches of B sequences of T tokens each, with `documents` the positions at which they
// begin.
struct StepShape {
  int64_t B = 1, T = 1, micro_batches = 1;
  bool recompute = false, documents = false;
};

// model.vocab_size 0, one that is not known yet: parameters and FLOPs without embedding and head,
// memory as with one token.
DryStep dry_step(const ModelConfig& model, const Dry& machine, DType compute,
                 const StepShape& shape, const OptimizerConfig& optimizer = {});

// What a dry step on the machine of `exec` stands for.
Dry described(const Exec& exec);

// The same as useful_flop() of one forward pass, per token, averaged over the positions of T.
double forward_flops_per_token(const ModelConfig& model, int64_t T);

}  // namespace rodimus
