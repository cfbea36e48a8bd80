// A new HDF5 file, written through our own driver, whose writes never fail: it keeps the first
// errno and drops everything after it. With the library's drivers, a full disk makes even H5Fclose
// fail; the unflushed data is retried at exit, and crashes there (1.10.8).
#pragma once

#include <filesystem>

#include "checkpoints/hdf5_raii.h"

namespace rodimus::hdf5 {

// Use it within a session.
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
  Handle file_;    // its driver writes to error_ until it is closed, so it is declared after error_
};

}  // namespace rodimus::hdf5
