// HDF5 with owning handles, errors as exceptions, and no dependence on file locks. The library may
// not be thread-safe and prints errors on its own: hold a Session around every use.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"

namespace rodimus::hdf5 {

// Holds the process's HDF5 mutex and turns off the library's own error printing.
class Session {
 public:
  Session();

 private:
  std::lock_guard<std::mutex> lock_;
};

// Throws Error: `what`, the innermost reason HDF5 gives, and what to do when the disk is full.
[[noreturn]] void fail_hdf5(const std::string& what);

// `result` unless negative, the way HDF5 reports failure.
template <class Result, class... What>
Result checked(Result result, const What&... what) {
  if (result < 0) fail_hdf5(concat(what...));
  return result;
}

class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close closer) : id_(id), close_(closer) {}
  ~Handle() { close_quietly(); }
  Handle(Handle&& other) noexcept
      : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  hid_t id() const { return id_; }
  // Closes and reports.
  template <class... What>
  void close(const What&... what) {
    checked(close_(std::exchange(id_, H5I_INVALID_HID)), what...);
  }

 private:
  void close_quietly() noexcept {
    if (id_ >= 0) close_(id_);
  }
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

// Access properties of every file: format 1.10, whose metadata has checksums, whatever the
// library's version; and no file locks, because they fail on NFS and Lustre, and a committed file
// is never written again.
Handle file_access();
Handle open_file(const std::filesystem::path& path);
Handle create_group(hid_t parent, const std::string& name);
Handle open_dataset(hid_t parent, const std::string& name);
Handle simple_space(std::span<const int64_t> shape);
Handle dataset_properties();
int64_t elements_of(hid_t dataset);

// Scalar UTF-8 strings, h5py's native kind. Stored as a dataset, because an attribute holds at most
// 64 KiB.
void write_text(hid_t parent, const std::string& name, const std::string& text);
std::string read_text(hid_t parent, const std::string& name);

// Attributes are read from files that nobody has checked yet. Strings have a fixed length, so they
// are stored in the object header, whose checksum HDF5 verifies, and not in the global heap, which
// has no checksum and crashes the library when damaged.
void write_attribute(hid_t object, const char* name, int64_t value);
void write_attribute(hid_t object, const char* name, const std::string& text);
int64_t read_integer(hid_t object, const char* name);
std::string read_string(hid_t object, const char* name);

}  // namespace rodimus::hdf5
