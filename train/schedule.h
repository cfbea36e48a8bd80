// The learning rate as a pure function of the step: a resumed run cannot differ from an
// uninterrupted one.
#pragma once

#include <cstdint>

#include "train/config/config.h"

namespace rodimus {

// Number of steps in the final decay of schedule "wsd", in a run of `steps`.
int64_t wsd_decay_steps(const OptimizerConfig& config, int64_t steps);

// The rate of optimizer step `step` (0-based) in a run of `steps`, with P = lr, M = min_lr, W =
// warmup_steps and D = decay_steps, or a tenth of the steps when that is 0:
//   step < W            P (step + 1) / W
//   cosine              M + (P - M) (1 + cos(pi u)) / 2    u = (step - W) / (steps - W)
//   wsd, last D steps   M + (P - M) (1 - sqrt u)           u = (step - (steps - D)) / D
//   wsd before them, and constant: P.
// From `steps` on: M (constant: P). The 1 - sqrt decay is from Hägele et al. 2024,
// arXiv:2405.18392.
double learning_rate(const OptimizerConfig& config, int64_t steps, int64_t step);

}  // namespace rodimus
