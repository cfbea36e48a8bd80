// Caching allocator: after the second training step nothing comes from the system any more. Freed
// blocks go to a free list of their size class (eight per power of two from 512 bytes on: at
// most 12.5 % is wasted) and are handed out again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/exec.h"

namespace rodimus::memory {

struct Stats {
  int64_t in_use = 0;        // bytes handed out now
  int64_t peak = 0;          // most bytes handed out at once since the last reset_peak()
  int64_t reserved = 0;      // bytes taken from the system
  int64_t system_calls = 0;  // how often the system was asked
};
Stats stats();
void reset_peak();
void release_cached();  // gives the free lists back to the system

// 64-byte aligned, uninitialised. Throws Error when the system has no more; hence not inside an
// OpenMP region, which an exception must not leave (PerThread in kernels/parallel.h). Thread-safe.
std::shared_ptr<std::byte> allocate(size_t bytes);

// Copies bytes; the ranges may overlap.
void copy(Cpu&, void* to, const void* from, int64_t bytes);

// Kernel workspace: lives until the end of the scope.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : storage_(allocate(static_cast<size_t>(count) * sizeof(T))), count_(count) {}
  T* data() const { return reinterpret_cast<T*>(storage_.get()); }
  std::span<T> span() const { return {data(), static_cast<size_t>(count_)}; }
  T& operator[](int64_t i) const { return data()[i]; }

 private:
  std::shared_ptr<std::byte> storage_;
  int64_t count_;
};

}  // namespace rodimus::memory
