// Caching allocators: after the second training step nothing comes from the system any more. On the
// host freed blocks go to a free list of their size class (eight per power of two from 512 bytes
// on: at most 12.5 % is wasted) and are handed out again; on the GPU the driver's pool does the
// same in the order of the stream (kernels/cuda/memory.cpp).
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
Stats stats(Device device = Device::cpu);  // not of Device::dry: that is DryMemory in dry.h
void reset_peak();                         // of every device
void release_cached();  // gives what nobody uses back to the system, on every device

// What a block of `bytes` takes of the memory of `device`, and counts in Stats: its size class, on
// the GPU what it asks for.
int64_t taken(int64_t bytes, Device device);

// 64-byte aligned (256 on the GPU), uninitialised. Throws Error when the system has no more; hence
// not inside an OpenMP region, which an exception must not leave (PerThread in
// kernels/cpu/parallel.h). Thread-safe. A block on the GPU belongs to the stream of open_gpu(): it
// may be let go while work queued there still uses it. Work on another stream must be waited for
// first. Of Device::dry there is only an address that nobody can read.
std::shared_ptr<std::byte> allocate(size_t bytes, Device device = Device::cpu);

// Within the memory of one device. On the host the ranges may overlap.
void copy(Cpu&, void* to, const void* from, int64_t bytes);
void copy(Cuda&, void* to, const void* from, int64_t bytes);

// Host memory to memory of the backend's device. `from` may be changed at once.
void upload(Cpu&, void* to, const void* from, int64_t bytes);
void upload(Cuda&, void* to, const void* from, int64_t bytes);

// Memory of the device to host memory, and the bytes are there on return: the host waits for all
// that was queued. Throws Error when a kernel met bad input since the last time (embedding.h,
// head_loss.h), which the host cannot know earlier.
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

// What kernels/cuda/memory.cpp does for the functions above; kernels/cpu/no_gpu.cpp in other
// builds.
namespace gpu {
std::shared_ptr<std::byte> allocate(size_t bytes);
Stats stats();
void reset_peak();
void release_cached();
}  // namespace gpu

}  // namespace rodimus::memory
