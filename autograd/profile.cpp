#include "autograd/profile.h"

#include <exception>

#include "base/error.h"

namespace rodimus {

void Profile::start() {
  rows_ = {Row{.op = {"unaccounted"}}};
  open_ = 0;
  charged_.clear();
  if (device_.mark) device_.mark();
  since_ = Clock::now();
}

void Profile::stop() {
  CHECK(open_ == 0 && !rows_.empty(), "Profile::stop: inside a scope, or without start()");
  charge();
  if (!device_.mark) return;
  const std::vector<double> seconds = device_.read();
  CHECK(seconds.size() == charged_.size(), "Profile::stop: ", seconds.size(), " times for ",
        charged_.size(), " marks");
  for (size_t i = 0; i < seconds.size(); ++i) rows_[charged_[i]].seconds += seconds[i];
}

double Profile::seconds() const {
  double sum = 0;
  for (const Row& row : rows_) sum += row.seconds;
  return sum;
}

void Profile::charge() {
  if (device_.mark) {
    device_.mark();
    charged_.push_back(open_);
    return;
  }
  const auto now = Clock::now();
  rows_[open_].seconds += std::chrono::duration<double>(now - since_).count();
  since_ = now;
}

size_t Profile::row_of(const Op& op, Phase phase) {
  for (size_t i = 0; i < rows_.size(); ++i) {
    const Row& row = rows_[i];
    if (row.phase == phase && row.op.in == op.in && row.op.out == op.out && row.op.name == op.name)
      return i;
  }
  rows_.push_back({.op = op, .phase = phase});
  return rows_.size() - 1;
}

Profile::Scope::Scope(Profile* profile, const Op& op, Phase phase)
    : profile_(profile), errors_(std::uncaught_exceptions()) {
  if (!profile_) return;
  CHECK(!profile_->rows_.empty(), "Profile::Scope: before start()");
  profile_->charge();
  if (phase == Phase::forward && profile_->replaying_) phase = Phase::recomputed;
  outer_ = profile_->open_;
  profile_->open_ = profile_->row_of(op, phase);
  Row& row = profile_->rows_[profile_->open_];
  ++row.calls;
  const bool does_forward = phase != Phase::backward,
             does_backward = phase == Phase::backward || phase == Phase::forward_backward;
  if (does_forward) row.cost = {row.cost.flop + op.forward.flop, row.cost.bytes + op.forward.bytes};
  if (does_backward)
    row.cost = {row.cost.flop + op.backward.flop, row.cost.bytes + op.backward.bytes};
}

Profile::Scope::~Scope() noexcept(false) {
  if (!profile_) return;
  if (std::uncaught_exceptions() == errors_) profile_->charge();
  profile_->open_ = outer_;
}

std::string_view name_of(Profile::Phase phase) {
  switch (phase) {
    case Profile::Phase::forward:
      return "forward";
    case Profile::Phase::recomputed:
      return "recomputed";
    case Profile::Phase::forward_backward:
      return "both";
    case Profile::Phase::backward:
      return "backward";
    case Profile::Phase::step:
      return "step";
  }
  return "";
}

std::string label_of(const Op& op) {
  return op.in > 0 ? concat(op.name, " ", op.in, " -> ", op.out) : std::string(op.name);
}

}  // namespace rodimus
