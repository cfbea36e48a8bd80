// Device memory for tests that launch kernels without the runtime: DeviceArray<float>
// x(host_vector).
#pragma once

#include <cstring>
#include <vector>

#include "tests/simt/emulator.h"

namespace simt {

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size)
      : size_(size), data_(static_cast<T*>(device_malloc(size * sizeof(T)))) {}
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    if (!values.empty()) std::memcpy(static_cast<void*>(data_), values.data(), size_ * sizeof(T));
    mark_written(data_, size_ * sizeof(T));
  }
  ~DeviceArray() { device_free(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::vector<T> values() const { return std::vector<T>(data_, data_ + size_); }

 private:
  size_t size_;
  T* data_;
};

}  // namespace simt
