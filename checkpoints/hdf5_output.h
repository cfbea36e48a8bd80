// A new HDF5 file, written through a driver of our own to which no write ever fails: it keeps the
// first errno and drops what comes after. With the drivers of the library a full disk makes even
// H5Fclose fail; what could not be flushed stays behind, is tried again at exit, and crashes there
// (1.10.8).
#pragma once

#include <filesystem>

#include "checkpoints/hdf5_raii.h"

namespace rodimus::hdf5 {

// Within a session.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  hid_t id() const { return file_.id(); }
  void check() const;  // throws Error when a write has failed so far
  void close();        // throws Error unless everything was written

 private:
  std::filesystem::path path_;
  int error_ = 0;  // errno of the first failure
  Handle file_;    // its driver writes to error_ until it is closed, so it comes after it
};

}  // namespace rodimus::hdf5
