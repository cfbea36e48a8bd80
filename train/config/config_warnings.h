// Warnings about settings that are valid but hardly ever intended.
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"
#include "train/config/resolve.h"

namespace rodimus {

// One line each, for the start of a run. `train` and `val` may be null, which skips their checks. A
// shard that is in both is recognised by its path or by the checksum of its tokens.
std::vector<std::string> config_warnings(const ResolvedConfig& config, const Dataset* train,
                                         const Dataset* val);

}  // namespace rodimus
