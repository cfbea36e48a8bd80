// One run per output folder: two jobs that write the same checkpoints would remove each other's.
#pragma once

#include <filesystem>

namespace rodimus {

// Holds an advisory lock on folder/lock from construction to destruction; a process that dies gives
// it up. Waits a few seconds for a predecessor that is still ending, then throws Error. Where the
// file system knows no locks (some network file systems) it does nothing.
class RunLock {
 public:
  explicit RunLock(const std::filesystem::path& folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int fd_;
};

}  // namespace rodimus
