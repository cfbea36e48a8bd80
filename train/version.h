// What this program is: version, commit, and what it was built with.
#pragma once

#include <string>

namespace rodimus {

// Two lines: "rodimus 0.1 (commit 639c7fd5d446)" and "features: ...". The commit ends in "-dirty"
// when files had changed since, and is "unknown" where there is neither git nor an archive made by
// it.
std::string version_text();

// The commit alone. Its source is written by cmake/commit.cmake, in every build.
const char* commit();

}  // namespace rodimus
