#include "base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace rodimus {
namespace {
constexpr size_t kBufferBytes = size_t{1} << 20;
}

AtomicFile::AtomicFile(std::filesystem::path path)
    : path_(std::move(path)), temporary_(path_.native() + ".tmp") {
  buffer_.reserve(kBufferBytes);
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_with_errno("cannot create");
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!published_) ::unlink(temporary_.c_str());
}

void AtomicFile::fail_with_errno(std::string_view what) const {
  const int code = errno;
  const bool full = code == ENOSPC || code == EDQUOT || code == EFBIG;
  fail(what, " ", temporary_.native(), ": ", std::strerror(code),
       full ? "; free some space or choose another folder (nothing was left under the final name)"
            : "");
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  hash_.update(bytes);
  size_ += bytes.size();
  if (buffer_.size() + bytes.size() > kBufferBytes) flush();
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

void AtomicFile::flush() {
  std::span<const std::byte> left(buffer_);
  while (!left.empty()) {
    const ssize_t written = ::write(fd_, left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_with_errno("cannot write");
    left = left.subspan(static_cast<size_t>(written));
  }
  buffer_.clear();
}

void AtomicFile::close() {
  flush();
  if (::fsync(fd_) != 0) fail_with_errno("cannot flush");
  if (::close(std::exchange(fd_, -1)) != 0) fail_with_errno("cannot close");
}

void AtomicFile::publish() {
  CHECK(fd_ < 0, "AtomicFile: publish() of ", path_.native(), " before close()");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_with_errno("cannot rename");
  published_ = true;
}

void write_whole(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.close();
  file.publish();
  sync_path(path.parent_path());
}

void sync_path(const std::filesystem::path& path) {
  const std::filesystem::path name = path.empty() ? "." : path;
  const int fd = ::open(name.c_str(), O_RDONLY | O_CLOEXEC);
  // Some file systems cannot fsync folders and report EINVAL.
  const bool ok = fd >= 0 && (::fsync(fd) == 0 || errno == EINVAL);
  const int code = errno;
  if (fd >= 0) ::close(fd);
  if (!ok) fail("cannot flush ", name.native(), ": ", std::strerror(code));
}

}  // namespace rodimus
