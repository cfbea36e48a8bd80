// A run that resumes: what must not have changed since its checkpoint, and what may.
#pragma once

#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "train/config/config.h"

namespace rodimus {

// Puts the type and the device that the checkpoint was computed on in the place of "auto", which is
// resolved once, when a run begins. `other_compute`: leaves run.compute as it is. Throws Error when
// run.compute names another type than the checkpoint, and when the run computed on a GPU and this
// machine has none. Returns what there is to say about it, one line each.
std::vector<std::string> keep_resolved(Config& now, const CheckpointReader& checkpoint,
                                       bool other_compute);

// "learning rate 5.6e-05 in the last step, 1.8e-04 in the next", and whether the schedule has
// changed in such a way that the two are more than 10 % apart. `step` steps are done; "" when none
// or all are.
struct RateChange {
  std::string line;
  bool jump = false;
};
RateChange rate_change(const Config& before, const Config& now, int64_t step);

// One line per key whose value differs from the checkpoint's, except those that cannot matter to
// the result.
std::vector<std::string> changed_keys(const Config& now, const CheckpointReader& checkpoint);

// Throws Error when the checkpoint was written by a different model, or when the order of the data
// would change (seed, seq_len, shuffle): each names key, old and new value.
void require_same_run(const Config& now, const CheckpointReader& checkpoint);

// For --init-from: one line per key of the model that differs without another shape of parameters,
// such as the window: the parameters were trained for the old value.
std::vector<std::string> changed_model_keys(const Config& now, const CheckpointReader& checkpoint);

}  // namespace rodimus
