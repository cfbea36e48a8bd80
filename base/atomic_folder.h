// A folder that appears under its name only once it is complete: files are written into NAME.tmp,
// publish() renames it.
#pragma once

#include <filesystem>

namespace rodimus {

class AtomicFolder {
 public:
  // Makes NAME.tmp, and the folders above it. Throws Error when it cannot, when something other
  // than an empty folder that can be replaced is at `path`, and when NAME.tmp is there already:
  // another process may be writing it.
  explicit AtomicFolder(const std::filesystem::path& path);
  ~AtomicFolder();  // removes NAME.tmp with all that is in it, unless published
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::filesystem::path& temporary() const { return temporary_; }
  void publish();  // NAME.tmp becomes NAME. The files in it must be on disk already

 private:
  std::filesystem::path path_, temporary_;
  bool published_ = false;
};

}  // namespace rodimus
