// A run that resumes: what must not have changed since its checkpoint, what may, and what is said
// about it. The table of keys (config_schema.cpp) says which key is which.
#pragma once

#include <string>
#include <vector>

#include "train/config/config.h"

namespace rodimus {

// `now` with what is "auto" there as it was when the run began. `other_compute`
// (--allow-other-compute): run.compute stays as it is.
Config continued(Config now, const Config& before, bool other_compute);

// One line per key that has another value than in the checkpoint `before` and can matter to the
// result. Throws Error with key, old and new value for what must not change: the model, what
// decides the order of the data, and without `other_compute` run.compute.
std::vector<std::string> changes_at_resume(const Config& before, const Config& now,
                                           bool other_compute);

// For --init-from: one line per key of the model that has another value, such as the window: the
// parameters were trained for the old one.
std::vector<std::string> changes_of_model(const Config& before, const Config& now);

// "learning rate 5.6e-05 in the last step, 1.8e-04 in the next", and whether the schedule has
// changed in such a way that the two are more than 10 % apart. `step` steps are done; "" when none
// or all are.
struct RateChange {
  std::string line;
  bool jump = false;
};
RateChange rate_change(const Config& before, const Config& now, int64_t step);

}  // namespace rodimus
