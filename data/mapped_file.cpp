#include "data/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace rodimus {

MappedFile::MappedFile(std::filesystem::path file) : path_(std::move(file)) {
  const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("cannot open ", path_.native(), ": ", std::strerror(errno));
  struct stat status {};
  const bool known = ::fstat(fd, &status) == 0;
  void* mapped = MAP_FAILED;
  const auto size = static_cast<size_t>(status.st_size);
  const bool regular = known && S_ISREG(status.st_mode);
  if (regular && size > 0) mapped = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const int map_errno = errno;
  ::close(fd);
  if (!regular) fail(path_.native(), " is not a regular file");
  if (size == 0) fail(path_.native(), " is empty");
  if (mapped == MAP_FAILED) fail("cannot map ", path_.native(), ": ", std::strerror(map_errno));
  bytes_ = {static_cast<const std::byte*>(mapped), size};
  mtime_ns_ = int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  inode_ = status.st_ino;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      bytes_(std::exchange(other.bytes_, {})),
      mtime_ns_(other.mtime_ns_),
      inode_(other.inode_) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  std::swap(mtime_ns_, other.mtime_ns_);
  std::swap(inode_, other.inode_);
  return *this;
}

}  // namespace rodimus
