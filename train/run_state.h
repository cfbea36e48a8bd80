// What a run carries from step to step besides its arrays, and its form in a checkpoint: what is
// written and what is read back stand side by side in run_state.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"

namespace rodimus {

// Data that --skip-steps left out: before step `step` + 1, the samples of `steps` steps.
struct LeftOut {
  int64_t step = 0, steps = 0;
  uint64_t from = 0, to = 0;  // samples [from, to)
};

struct RunState {
  int64_t step = 0;     // optimizer steps done
  uint64_t sample = 0;  // global index of the next sample: the loader's whole state
  int64_t updates = 0;  // steps that changed the parameters: AdamW's t
  int64_t skipped = 0, skipped_in_a_row = 0;  // steps that did not: loss or gradient not finite
  int64_t evaluated_step = -1;
  std::string data;       // fingerprint of data.train
  std::string init_from;  // what --init-from named when the run began, "" = nothing
  bool init_moments = false;
  int64_t threads = 0;  // of rank 0: sums depend on them by rounding; 0 = unknown
  std::vector<LeftOut> left_out;

  uint64_t samples_left_out() const;
};

// TrainState::state_json; step and sample have fields of their own there.
std::string state_json(const RunState& state);

// Throws Error when the checkpoint's state is not that of a training run.
RunState run_state(const CheckpointReader& checkpoint);

}  // namespace rodimus
