#include "base/paths.h"

#include "base/error.h"

namespace rodimus {

std::filesystem::path canonical_path(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::path found =
      std::filesystem::weakly_canonical(std::filesystem::absolute(path), error);
  if (error) fail(path.native(), ": cannot be looked up: ", error.message());
  return found.has_filename() ? found : found.parent_path();
}

}  // namespace rodimus
