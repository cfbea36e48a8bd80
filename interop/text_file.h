// The JSON files beside the weights.
#pragma once

#include <filesystem>
#include <string>

namespace rodimus {

// The whole file. Throws Error when it cannot be read or is longer than any such file (100 MB).
std::string read_text_file(const std::filesystem::path& path);

}  // namespace rodimus
