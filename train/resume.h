// Resuming a run: what must not have changed since its checkpoint, what may change, and what is
// reported. The table of keys (config_schema.cpp) says which key is which.
#pragma once

#include <string>
#include <vector>

#include "train/config/config.h"

namespace rodimus {

// `now` with "auto" values replaced by those of the run so far. `other_compute`
// (--allow-other-compute): run.compute is left unchanged.
Config continued(Config now, const Config& before, bool other_compute);

// One line per key that differs from the checkpoint `before` and can affect the result. Throws
// Error with key, old and new value for what must not change: the model, what determines the order
// of the data, and, without `other_compute`, run.compute.
std::vector<std::string> changes_at_resume(const Config& before, const Config& now,
                                           bool other_compute);

// For --init-from: one line per model key that differs (such as the window), because the parameters
// were trained with the old value.
std::vector<std::string> changes_of_model(const Config& before, const Config& now);

// "learning rate 5.6e-05 in the last step, 1.8e-04 in the next", and whether a changed schedule
// makes the two differ by more than 10 %. `step` steps are done; "" when none or all are.
struct RateChange {
  std::string line;
  bool jump = false;
};
RateChange rate_change(const Config& before, const Config& now, int64_t step);

}  // namespace rodimus
