// A file mapped read-only. Pages come from the page cache, so all ranks of a node share one copy
// and a corpus larger than memory needs no special case.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace rodimus {

class MappedFile {
 public:
  // Throws Error when the file is missing, unreadable, empty or not a regular file. Shrinking the
  // file while it is mapped kills the process (SIGBUS): writers here rename, never overwrite.
  explicit MappedFile(std::filesystem::path file);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  // As of mapping: distinguishes versions of a file, and a file from its copy.
  int64_t mtime_ns() const { return mtime_ns_; }  // since 1970
  uint64_t inode() const { return inode_; }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
  int64_t mtime_ns_ = 0;
  uint64_t inode_ = 0;
};

}  // namespace rodimus
