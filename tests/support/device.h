// Lets kernel tests run on either backend from the same source: with RODIMUS_TEST_CUDA, arrays are
// in GPU memory and kernels are those for Cuda& (on a real GPU, or the emulator with the fake
// runtime); without it, host arrays and Cpu&.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/device.h"
#include "kernels/memory.h"
#include "tests/support/compare.h"

namespace rodimus::testing {

#ifdef RODIMUS_TEST_CUDA
using Backend = Cuda;
inline constexpr Device kDevice = Device::cuda;
inline Backend backend(int /*threads*/ = 1) { return open_gpu(0); }
#else
using Backend = Cpu;
inline constexpr Device kDevice = Device::cpu;
inline Backend backend(int threads = 1) { return Cpu{threads}; }
#endif

// An array in the memory of the backend.
template <class T>
class Array {
 public:
  // Uninitialised: the race build reports a kernel that reads it.
  explicit Array(int64_t count) : count_(count) {
    (void)backend();  // opens the GPU
    storage_ = memory::allocate(static_cast<size_t>(bytes()), kDevice);
  }
  Array(const std::vector<T>& values)  // NOLINT: the copy on the device is the array
      : Array(static_cast<int64_t>(values.size())) {
    set(values);
  }
  Array(int64_t count, T value) : Array(std::vector<T>(static_cast<size_t>(count), value)) {}

  int64_t size() const { return count_; }
  T* data() { return reinterpret_cast<T*>(storage_.get()); }
  const T* data() const { return reinterpret_cast<const T*>(storage_.get()); }

  void set(const std::vector<T>& values) {
    CHECK(static_cast<int64_t>(values.size()) == count_, "Array::set: ", values.size(), " of ",
          count_);
    Backend exec = backend();
    memory::upload(exec, data(), values.data(), bytes());
  }
  // Waits for all launched kernels.
  std::vector<T> host() const {
    std::vector<T> values(static_cast<size_t>(count_));
    Backend exec = backend();
    memory::download(exec, values.data(), data(), bytes());
    return values;
  }

 private:
  int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(T)); }

  int64_t count_;
  std::shared_ptr<std::byte> storage_;
};

// Numbers of threads to test; on a GPU there is only one case.
inline std::vector<int> thread_counts(std::vector<int> on_cpu) {
  if (kDevice == Device::cuda) on_cpu.resize(1);
  return on_cpu;
}

// The emulator runs all tests once per schedule: tests that are too slow for this run only under
// the first, unless this variable is set.
inline bool every_schedule() { return std::getenv("RODIMUS_EVERY_SCHEDULE") != nullptr; }

// On the GPU, true from the second call on; `ran` is a static variable of the test.
inline bool ran_before(bool& ran) {
  return kDevice == Device::cuda && !every_schedule() && std::exchange(ran, true);
}

// A copy of an input for the duration of the call: kernel(exec, out.data(), in(x).data()).
template <class T>
Array<T> in(const std::vector<T>& values) {
  return values;
}

template <class T>
std::vector<double> to_double(const Array<T>& x) {
  return to_double(x.host());
}

}  // namespace rodimus::testing
