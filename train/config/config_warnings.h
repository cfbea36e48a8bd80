// What a configuration allows and hardly anybody means.
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"
#include "train/config/resolve.h"

namespace rodimus {

// One line each, for the start of a run. `train` and `val` may be null: then nothing is said about
// them. A shard that both name is found by its path and by the checksum of its tokens.
std::vector<std::string> config_warnings(const ResolvedConfig& config, const Dataset* train,
                                         const Dataset* val);

}  // namespace rodimus
