#include "train/resume.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/config/config_schema.h"
#include "train/schedule.h"

namespace rodimus {
namespace {

constexpr const char* kAuto = "\"auto\"";  // as toml_value() writes it

struct Change {
  std::string key, before, now;
  bool of_model;
  AtResume at_resume;

  std::string line() const {
    return concat(key, " is ", now, ", was ", before, " in the checkpoint");
  }
};

// The keys whose meaning differs, in the order of the table.
std::vector<Change> changes(Config before, Config now) {
  const auto old_fields = config_fields(before), new_fields = config_fields(now);
  std::vector<Change> found;
  for (size_t i = 0; i < new_fields.size(); ++i) {
    const ConfigField &was = old_fields[i], &is = new_fields[i];
    if (was.toml_value() == is.toml_value()) continue;
    if (is.meaning && is.meaning(before.model) == is.meaning(now.model)) continue;
    found.push_back(
        {is.key(), was.toml_value(), is.toml_value(), is.section == "model", is.at_resume});
  }
  return found;
}

void refuse(const Change& change) {
  fail(change.key, " is ", change.now, ", but the checkpoint was written with ", change.before,
       "; set it back, or start a new run with another run.output");
}

void refuse_other_compute(const Change& change) {
  fail(change.key, " is ", change.now, ", but the run has used ", change.before,
       "; set it to that or to ", kAuto, ", or give --allow-other-compute to continue in ",
       change.now);
}

}  // namespace

Config continued(Config now, const Config& before, bool other_compute) {
  Config stored = before;
  const auto old_fields = config_fields(stored), new_fields = config_fields(now);
  for (size_t i = 0; i < new_fields.size(); ++i) {
    const ConfigField &was = old_fields[i], &is = new_fields[i];
    if (is.toml_value() != kAuto || was.choices.empty()) continue;
    if (is.at_resume == AtResume::other_compute && other_compute) continue;
    *std::get<std::string*>(is.target) = *std::get<std::string*>(was.target);
  }
  return now;
}

std::vector<std::string> changes_at_resume(const Config& before, const Config& now,
                                           bool other_compute) {
  std::vector<std::string> lines;
  for (const Change& change : changes(before, now)) {
    // Checkpoints of version 0.1 may hold "auto": the type that the run used is unknown.
    const bool allowed = other_compute || change.before == kAuto;
    switch (change.at_resume) {
      case AtResume::silent:
        break;
      case AtResume::refused:
        refuse(change);
        break;
      case AtResume::other_compute:
        if (!allowed) refuse_other_compute(change);
        lines.push_back(change.line());
        break;
      case AtResume::said:
        lines.push_back(change.line());
        break;
      case AtResume::rounded:
        lines.push_back(change.line() + ": results may differ by rounding");
        break;
    }
  }
  return lines;
}

std::vector<std::string> changes_of_model(const Config& before, const Config& now) {
  std::vector<std::string> lines;
  for (const Change& change : changes(before, now))
    if (change.of_model) lines.push_back(change.line());
  return lines;
}

RateChange rate_change(const Config& before, const Config& now, int64_t step) {
  if (step < 1 || step >= now.run.steps) return {};
  const double last = learning_rate(before.optimizer, before.run.steps, step - 1);
  const double next = learning_rate(now.optimizer, now.run.steps, step);
  const double planned = learning_rate(before.optimizer, before.run.steps, step);
  constexpr double kTenth = 0.1;
  // A jump that the schedule plans is fine: a warm-up may well double the rate.
  const bool jump = std::abs(next - last) > kTenth * last && next != planned;
  return {fmt::format("learning rate {:.3g} in the last step, {:.3g} in the next", last, next),
          jump};
}

}  // namespace rodimus
