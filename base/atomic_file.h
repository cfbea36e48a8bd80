// A file that appears under its name only once it is complete: bytes go to NAME.tmp, close()
// flushes them to disk, publish() renames it. Memory: one buffer of 1 MiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "base/checksum.h"

namespace rodimus {

class AtomicFile {
 public:
  // Throws Error when NAME.tmp cannot be created. A leftover NAME.tmp is replaced.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();  // removes NAME.tmp unless published
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  template <class T>
  void write_value(const T& value) {
    write(std::as_bytes(std::span(&value, 1)));
  }
  void close();    // fsync and close; a full disk is reported here at the latest
  void publish();  // after close(): NAME.tmp becomes NAME

  const std::filesystem::path& temporary() const { return temporary_; }
  uint64_t size() const { return size_; }
  uint64_t digest() const { return hash_.digest(); }  // XXH64 of everything written

 private:
  void flush();
  [[noreturn]] void fail_with_errno(std::string_view what) const;

  std::filesystem::path path_, temporary_;
  std::vector<std::byte> buffer_;
  Xxh64 hash_;
  uint64_t size_ = 0;
  int fd_ = -1;
  bool published_ = false;
};

// Writes `text` to `path`, all or nothing: a kill or a full disk leaves the old file. Throws Error.
void write_whole(const std::filesystem::path& path, std::string_view text);

// Calls fsync on a file or a folder; for a folder this makes renames in it survive a power cut. ""
// is the working folder. Throws Error.
void sync_path(const std::filesystem::path& path);

}  // namespace rodimus
