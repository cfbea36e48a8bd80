// One optimizer step of all ranks together: what `rodimus train` repeats and `rodimus bench` times.
#pragma once

#include <functional>

#include "dist/bucketed_sum.h"
#include "layers/model.h"
#include "train/optimizer.h"
#include "train/run_data.h"

namespace rodimus {

// The result of a step; the same on every rank.
struct StepResult {
  double loss = 0;  // nats per token, mean over the global batch
  double grad_norm = 0;
  bool skipped = false;    // loss or gradient not finite: parameters are unchanged
  bool stop = false;       // some rank received a stop signal
  double data_wait_s = 0;  // mean over ranks of the time spent in `next`
};

// What a step works with, and what does not change from step to step.
struct Stepper {
  Context ctx;  // with a profile, if wanted; each step makes its own tape
  Model& model;
  Optimizer& optimizer;
  Communicator& communicator;
  int64_t tokens = 0;         // in the global batch
  int64_t micro_batches = 1;  // per rank
  bool recompute = false;
  std::function<BatchTensors()> next;  // the next micro-batch of this rank
  // Backward starts a sum over the ranks whenever this many more gradients are final.
  int64_t bucket = BucketedSum::kBucket;

  // Zeroes the gradients, runs the micro-batches, sums over ranks, takes the norm, and updates with
  // `lr`. Collective.
  StepResult step(double lr);

 private:
  double forward_backward(BucketedSum& gradient_sum, double* data_wait_s);
};

}  // namespace rodimus
