// One run per output folder: two jobs that write checkpoints there would remove each other's.
#pragma once

#include <filesystem>

namespace rodimus {

// Holds an advisory lock on folder/lock from construction to destruction; a process that dies
// releases it. Waits a few seconds for a previous run that is still exiting, then throws Error. On
// file systems without locks (some network file systems) it does nothing.
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
