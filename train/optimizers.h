// The table of optimizers: the valid values of optimizer.name. A new one needs a source file with
// its make function, and a declaration and a line here.
#pragma once

#include <array>
#include <string_view>

#include "train/optimizer.h"

namespace rodimus {

using MakeOptimizer = std::unique_ptr<Optimizer>(Exec& exec, ParameterBuffers& buffers,
                                                 const OptimizerConfig& config);
MakeOptimizer make_adamw;

struct OptimizerType {
  std::string_view name;
  MakeOptimizer* make;
};
inline constexpr std::array kOptimizers{OptimizerType{"adamw", make_adamw}};

}  // namespace rodimus
