// How much memory training takes, from the shape of the model alone: what `rodimus inspect` and
// `rodimus bench` print, and what decides whether a run fits before it is started.
#pragma once

#include "kernels/exec.h"
#include "layers/config.h"

namespace rodimus {

int64_t parameter_count(const ModelConfig& config);  // nothing is allocated

// Bytes on one rank at the moment when most is in use. What the communicator and the system take
// on top is not counted, nor the copies that GEMM makes of some operands; the allocator's size
// classes add up to an eighth.
struct TrainingMemory {
  int64_t parameters = 0;  // f32, and the bf16 copy when computing in bf16
  int64_t gradients = 0;
  int64_t moments = 0;
  int64_t activations = 0;  // what forward saves for backward
  int64_t workspace = 0;    // gradients in flight and the scratch of kernels
  int64_t batch = 0;        // token ids of one micro-batch
  int64_t total() const {
    return parameters + gradients + moments + activations + workspace + batch;
  }
};

// Micro-batches of B sequences of T tokens on a GPU or a CPU. There, computing in bf16 without
// hardware for it takes more: operands are widened.
TrainingMemory training_memory(const ModelConfig& config, Device device, DType compute, int64_t B,
                               int64_t T, bool recompute);

}  // namespace rodimus
