// The program's version, commit, and build features.
#pragma once

#include <string>

namespace rodimus {

// Two lines: "rodimus 0.1 (commit 639c7fd5d446)" and "features: ...". The commit ends in "-dirty"
// if files had changed since, and is "unknown" if there is neither git nor an archive made by git.
std::string version_text();

// Only the commit. cmake/commit.cmake writes its source in every build.
const char* commit();

}  // namespace rodimus
