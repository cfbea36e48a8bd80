#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace rodimus {

int64_t wsd_decay_steps(const OptimizerConfig& config, int64_t steps) {
  return config.decay_steps > 0 ? config.decay_steps : std::max<int64_t>(steps / 10, 1);
}

double learning_rate(const OptimizerConfig& config, int64_t steps, int64_t step) {
  CHECK(step >= 0, "learning_rate: step ", step);
  const double peak = config.lr, low = config.min_lr;
  const auto fraction = [](int64_t part, int64_t whole) {
    return static_cast<double>(part) / static_cast<double>(whole);
  };
  if (step < config.warmup_steps) return peak * fraction(step + 1, config.warmup_steps);
  if (config.schedule == "constant") return peak;
  if (step >= steps) return low;
  if (config.schedule == "cosine") {
    const double u = fraction(step - config.warmup_steps, steps - config.warmup_steps);
    return low + (peak - low) * (1 + std::cos(std::numbers::pi * u)) / 2;
  }
  CHECK(config.schedule == "wsd", "learning_rate: schedule ", config.schedule);
  const int64_t decay = wsd_decay_steps(config, steps);
  if (step < steps - decay) return peak;
  return low + (peak - low) * (1 - std::sqrt(fraction(step - (steps - decay), decay)));
}

}  // namespace rodimus
