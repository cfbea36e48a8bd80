#include "interop/text_file.h"

#include <fstream>

#include "base/error.h"

namespace rodimus {

std::string read_text_file(const std::filesystem::path& path) {
  constexpr uintmax_t kMost = 100'000'000;
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    fail(path.native(), ": there is no such file");
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) fail(path.native(), ": cannot read its size: ", error.message());
  if (size > kMost) fail(path.native(), ": ", size, " bytes, expected at most ", kMost);
  std::ifstream in(path, std::ios::binary);
  std::string text(size, '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(size)))
    fail(path.native(), ": cannot be read to its end; check its permissions");
  return text;
}

}  // namespace rodimus
