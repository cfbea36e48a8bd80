#pragma once

#include <filesystem>

namespace rodimus {

// The one spelling of a path: absolute, links followed, without "." and a slash at the end. Its end
// need not exist. Throws Error naming the path when it cannot be looked up, for example because a
// folder may not be entered.
std::filesystem::path canonical_path(const std::filesystem::path& path);

}  // namespace rodimus
