#include "checkpoints/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <span>
#include <vector>

#include "base/checksum.h"
#include "base/error.h"

namespace rodimus {
namespace {

class File {
 public:
  explicit File(const std::filesystem::path& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) fail_errno("cannot read", path, errno);
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

template <class Take>
void read_blocks(const std::filesystem::path& path, Take take) {
  const File file(path);
  std::vector<std::byte> block(1 << 20);
  while (true) {
    const ssize_t got = ::read(file.fd(), block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_errno("cannot read", path, errno);
    if (got == 0) return;
    take(std::span<const std::byte>(block.data(), static_cast<size_t>(got)));
  }
}

}  // namespace

std::string_view advice_for(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return "; free space or change run.output";
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOTDIR:
      return "; change run.output to a folder that can be written";
    default:
      return "";
  }
}

void fail_errno(std::string_view action, const std::filesystem::path& path, int error) {
  fail(action, " ", path.string(), ": ", std::strerror(error), advice_for(error));
}

FileSum sum_of_file(const std::filesystem::path& file) {
  FileSum sum;
  Xxh64 hash;
  read_blocks(file, [&](std::span<const std::byte> bytes) {
    sum.size += static_cast<int64_t>(bytes.size());
    hash.update(bytes);
  });
  sum.xxh64 = hash.digest();
  return sum;
}

int64_t size_of_file(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  struct stat status = {};
  const bool known = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  ::close(fd);
  return known ? static_cast<int64_t>(status.st_size) : -1;
}

std::string read_text_file(const std::filesystem::path& file) {
  std::string text;
  read_blocks(file, [&](std::span<const std::byte> bytes) {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  return text;
}

void replace_folder(const std::filesystem::path& from, const std::filesystem::path& to,
                    const std::filesystem::path& aside) {
  const auto rename = [](const std::filesystem::path& a, const std::filesystem::path& b) {
    if (::rename(a.c_str(), b.c_str()) != 0) fail_errno("cannot rename to", b, errno);
  };
  std::error_code ignored;
  if (!std::filesystem::exists(to, ignored)) return rename(from, to);
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    std::filesystem::remove_all(from, ignored);  // after the swap this is the old folder
    return;
  }
  rename(to, aside);
  try {
    rename(from, to);
  } catch (...) {
    ::rename(aside.c_str(), to.c_str());
    throw;
  }
  std::filesystem::remove_all(aside, ignored);
}

}  // namespace rodimus
