// Caching allocators: from the third training step on, nothing is requested from the system. On the
// host, freed blocks go to a free list of their size class (eight per power of two, from 512 bytes
// up, so at most 12.5 % is wasted) and are reused; on the GPU the driver's pool does the same in
// stream order (kernels/cuda/memory.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/exec.h"

namespace rodimus::memory {

struct Stats {
  int64_t in_use = 0;        // bytes currently handed out
  int64_t peak = 0;          // most bytes handed out at once since the last reset_peak()
  int64_t reserved = 0;      // bytes taken from the system
  int64_t system_calls = 0;  // number of requests to the system
};
Stats stats(Device device = Device::cpu);  // not of Device::dry: that is DryMemory in dry.h
void reset_peak();                         // of every device
void release_cached();                     // returns unused blocks to the system, on every device

// The memory of `device` that a block of `bytes` takes and that Stats counts: its size class on the
// host, the exact size on the GPU.
int64_t taken(int64_t bytes, Device device);

// 64-byte aligned (256 on the GPU), uninitialised. Throws Error when the system has no more, so do
// not call it inside an OpenMP region, which an exception must not leave (use PerThread in
// kernels/cpu/parallel.h). Thread-safe. A block on the GPU belongs to the stream of open_gpu(): it
// may be freed while work queued there still uses it, but work on another stream must finish first.
// On Device::dry the result is an address that nobody can read.
std::shared_ptr<std::byte> allocate(size_t bytes, Device device = Device::cpu);

// Within the memory of one device. On the host the ranges may overlap.
void copy(Cpu&, void* to, const void* from, int64_t bytes);
void copy(Cuda&, void* to, const void* from, int64_t bytes);

// Host memory to memory of the backend's device. `from` may be reused at once.
void upload(Cpu&, void* to, const void* from, int64_t bytes);
void upload(Cuda&, void* to, const void* from, int64_t bytes);

// Device memory to host memory, complete on return: the host waits for all queued work. Throws
// Error when a kernel has met bad input since the last call (embedding.h, head_loss.h), which the
// host cannot know earlier.
void download(Cpu&, void* to, const void* from, int64_t bytes);
void download(Cuda&, void* to, const void* from, int64_t bytes);

// Kernel workspace: lives until the end of the scope. span() and [] are for host memory.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count, Device device = Device::cpu)
      : storage_(allocate(static_cast<size_t>(count) * sizeof(T), device)), count_(count) {}
  T* data() const { return reinterpret_cast<T*>(storage_.get()); }
  std::span<T> span() const { return {data(), static_cast<size_t>(count_)}; }
  T& operator[](int64_t i) const { return data()[i]; }

 private:
  std::shared_ptr<std::byte> storage_;
  int64_t count_;
};

// The GPU part of the functions above: kernels/cuda/memory.cpp, or kernels/cpu/no_gpu.cpp in other
// builds.
namespace gpu {
std::shared_ptr<std::byte> allocate(size_t bytes);
Stats stats();
void reset_peak();
void release_cached();
}  // namespace gpu

}  // namespace rodimus::memory
