// The parts of TrainingMemory and their sum as JSON, in bytes: for plan, inspect and bench.
#pragma once

#include <nlohmann/json.hpp>

#include "train/dry_step.h"

namespace rodimus {

inline nlohmann::ordered_json to_json(const TrainingMemory& memory) {
  return {{"parameters_bytes", memory.parameters}, {"gradients_bytes", memory.gradients},
          {"moments_bytes", memory.moments},       {"activations_bytes", memory.activations},
          {"workspace_bytes", memory.workspace},   {"batch_bytes", memory.batch},
          {"total_bytes", memory.total()}};
}

}  // namespace rodimus
