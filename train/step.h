// One optimizer step of all ranks together: what `rodimus train` repeats and `rodimus bench` times.
#pragma once

#include <functional>

#include "dist/bucketed_sum.h"
#include "layers/model.h"
#include "train/optimizer.h"
#include "train/run_data.h"

namespace rodimus {

// What a step came to; the same on every rank.
struct StepResult {
  double loss = 0;  // nats per token, mean over the global batch
  double grad_norm = 0;
  bool skipped = false;    // loss or gradient not finite: parameters stayed as they were
  bool stop = false;       // some rank received a stop signal
  double data_wait_s = 0;  // mean over ranks of the time spent in `next`
};

// The collaborators of a step, and what stays the same from step to step.
struct Stepper {
  Context ctx;  // with its profile, if there is one; the tape is the step's own
  Model& model;
  Optimizer& optimizer;
  Communicator& communicator;
  int64_t tokens = 0;         // of the global batch
  int64_t micro_batches = 1;  // per rank
  bool recompute = false;
  std::function<BatchTensors()> next;  // the next micro-batch of this rank
  // Backward starts a sum over the ranks whenever so many gradients more are final.
  int64_t bucket = BucketedSum::kBucket;

  // Gradients to zero, micro-batches, sum over ranks, norm, update with `lr`. Every rank calls it.
  StepResult step(double lr);

 private:
  double forward_backward(BucketedSum& gradient_sum, double* data_wait_s);
};

}  // namespace rodimus
