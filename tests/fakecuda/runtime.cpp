// The CUDA runtime API, as much of it as the host code of kernels/cuda and dist/nccl.cpp calls:
// linked into tests in place of libcudart. A function that is missing here is a link error.
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/fakecuda/work.h"
#include "tests/simt/emulator.h"

using namespace fakecuda;

namespace {

constexpr int kMultiProcessors = 132;  // of an H100, so that launches are shaped as there

struct Gpus {
  int first = getpid(), count = 1;
};
Gpus gpus;
int current_gpu = 0;
cudaError_t driver_error = cudaSuccess;
int driver_version = kDriverVersion;
int waits_until_ignored = 0;
bool is_gpu(int device) { return device >= 0 && device < gpus.count; }

cudaError_t last_error = cudaSuccess;
cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

struct Event {
  bool timed;
  WorkPtr recorded;
  std::shared_ptr<std::chrono::steady_clock::time_point> when;  // it was reached
};
Event& event_of(cudaEvent_t handle) { return *reinterpret_cast<Event*>(handle); }

int64_t waits = 0;
WorkPtr asked_for;  // by the last cudaEventQuery that found it unfinished
// What a call does that blocks the host.
void wait_for(const WorkPtr& work) {
  if (work && !work->done) ++waits;
  finish(work);
}
void wait_for_all() {
  if (unfinished() > 0) ++waits;
  finish_all();
}

std::map<const std::byte*, size_t> pinned;
bool is_pinned(const void* pointer) {
  const auto* p = static_cast<const std::byte*>(pointer);
  auto found = pinned.upper_bound(p);
  if (found == pinned.begin()) return false;
  --found;
  return p < found->first + found->second;
}

// What the driver's pool would hold: blocks come and go in the order of the calls.
struct Pool {
  uint64_t in_use = 0, reserved = 0;
  std::map<const void*, size_t> blocks;
};
Pool pool;
const cudaMemPool_t kPool = reinterpret_cast<cudaMemPool_t>(&pool);

// Runs when its turn comes.
void copy_now(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (to_device != simt::is_device(to) || from_device != simt::is_device(from)) {
    mistake("memcpy-kind", "cudaMemcpy: the kind is not that of the pointers");
    return;
  }
  if (to_device) require_device(to, bytes, "cudaMemcpy, destination");
  if (from_device) require_device(from, bytes, "cudaMemcpy, source");
  if (bytes == 0 || simt::is_reserved(to)) return;  // nobody may touch what is only reserved
  if (simt::is_reserved(from)) {
    std::memset(to, 0, bytes);
  } else {
    std::memmove(to, from, bytes);
  }
  if (to_device) simt::mark_written(to, bytes);
}

}  // namespace

int64_t fakecuda::take_waits() { return std::exchange(waits, 0); }
void fakecuda::set_driver(cudaError_t error, int version) {
  driver_error = error;
  driver_version = version;
}
void fakecuda::set_gpus(int first, int count) { gpus = {first, count}; }
void fakecuda::ignore_wait(int number) { waits_until_ignored = number; }

extern "C" {

// ---- Devices and errors ------------------------------------------------------------------------

cudaError_t cudaDriverGetVersion(int* version) {
  *version = driver_version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kRuntimeVersion;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (driver_error != cudaSuccess) return result(driver_error);
  *count = gpus.count;
  return result(gpus.count > 0 ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
  if (!is_gpu(device)) return result(cudaErrorInvalidDevice);
  current_gpu = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_gpu;
  return cudaSuccess;
}
// The UUID alone: what it is that two processes have in common.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!is_gpu(device)) return result(cudaErrorInvalidDevice);
  std::memset(properties, 0xff, sizeof(*properties));
  const int number = gpus.first + device;
  std::memcpy(&properties->uuid, &number, sizeof(number));
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!is_gpu(device)) return result(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiProcessors;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = simt::gpu().major;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = simt::gpu().minor;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(simt::gpu().shared_per_block);
      return cudaSuccess;
    default:
      not_implemented("cudaDeviceGetAttribute " + std::to_string(attribute));
  }
}
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation       ? "out of memory"
         : error == cudaErrorNoDevice             ? "no CUDA-capable device is detected"
         : error == cudaSuccess                   ? "no error"
         : error == cudaErrorInvalidValue         ? "invalid argument"
         : error == cudaErrorInvalidConfiguration ? "invalid configuration argument"
                                                  : "an error of the fake runtime";
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorMemoryAllocation       ? "cudaErrorMemoryAllocation"
         : error == cudaSuccess                   ? "cudaSuccess"
         : error == cudaErrorInvalidValue         ? "cudaErrorInvalidValue"
         : error == cudaErrorInvalidConfiguration ? "cudaErrorInvalidConfiguration"
                                                  : "cudaErrorOfTheFake";
}
cudaError_t cudaDeviceSynchronize() {
  wait_for_all();
  return cudaSuccess;
}

// ---- Memory ------------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  *pointer = simt::device_malloc(bytes);
  return *pointer ? cudaSuccess : result(cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  wait_for_all();
  simt::device_free(pointer);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* into, int device) {
  *into = kPool;
  return result(is_gpu(device) ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void*) {
  if (attribute != cudaMemPoolAttrReleaseThreshold) not_implemented("cudaMemPoolSetAttribute");
  return cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  if (attribute != cudaMemPoolAttrReservedMemCurrent) not_implemented("cudaMemPoolGetAttribute");
  *static_cast<uint64_t*>(value) = pool.reserved;
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t keep) {
  pool.reserved = std::max<uint64_t>(pool.in_use, std::min<uint64_t>(pool.reserved, keep));
  return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** pointer, size_t bytes, cudaMemPool_t,
                                    cudaStream_t stream) {
  *pointer = simt::config.launch_only ? simt::device_reserve(bytes) : simt::device_malloc(bytes);
  if (*pointer == nullptr) return result(cudaErrorMemoryAllocation);
  pool.blocks[*pointer] = bytes;
  pool.in_use += bytes;
  pool.reserved = std::max(pool.reserved, pool.in_use);
  enqueue(stream_of(stream), "cudaMallocFromPoolAsync", [] {});
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  const auto found = pool.blocks.find(pointer);
  if (found == pool.blocks.end()) {
    mistake("bad-free", "cudaFreeAsync of what cudaMallocFromPoolAsync did not give");
    return result(cudaErrorInvalidValue);
  }
  pool.in_use -= found->second;
  pool.blocks.erase(found);
  enqueue(stream_of(stream), "cudaFreeAsync", [pointer] { simt::device_free(pointer); });
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  if (flags != cudaHostAllocDefault) not_implemented("cudaHostAlloc with flags");
  *pointer = std::malloc(bytes);
  std::memset(*pointer, 0xff, bytes);  // NaN: fresh memory must not look like zeros
  pinned[static_cast<std::byte*>(*pointer)] = bytes;
  simt::allow_host(*pointer, bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
  wait_for_all();
  simt::forbid_host(pointer);
  pinned.erase(static_cast<std::byte*>(pointer));
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (kind == cudaMemcpyHostToDevice && !is_pinned(from)) {  // pageable: staged at the call
    const auto* begin = static_cast<const std::byte*>(from);
    auto staged = std::make_shared<std::vector<std::byte>>(begin, begin + bytes);
    enqueue(stream_of(stream), "cudaMemcpyAsync",
            [=] { copy_now(to, staged->data(), bytes, kind); });
    return cudaSuccess;
  }
  const WorkPtr work =
      enqueue(stream_of(stream), "cudaMemcpyAsync", [=] { copy_now(to, from, bytes, kind); });
  if (kind == cudaMemcpyDeviceToHost && !is_pinned(to))
    wait_for(work);  // pageable: returns when done
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  wait_for(enqueue(stream_of(nullptr), "cudaMemcpy", [=] { copy_now(to, from, bytes, kind); }));
  return cudaSuccess;
}
cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream) {
  enqueue(stream_of(stream), "cudaMemset", [=] {
    for (size_t row = 0; row < height; ++row) {
      void* const begin = static_cast<std::byte*>(to) + row * pitch;
      require_device(begin, width, "cudaMemset");
      if (simt::is_reserved(begin)) continue;
      std::memset(begin, value, width);
      simt::mark_written(begin, width);
    }
  });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return cudaMemset2DAsync(to, bytes, value, bytes, 1, stream);
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

// ---- Streams and events ------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  *stream = add_stream((flags & cudaStreamNonBlocking) == 0);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  remove_stream(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  wait_for(stream_of(stream).last);
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return poll(stream_of(stream).last) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (flags != cudaEventDisableTiming && flags != cudaEventDefault)
    not_implemented("cudaEventCreateWithFlags " + std::to_string(flags));
  *event = reinterpret_cast<cudaEvent_t>(new Event{flags == cudaEventDefault, {}, {}});
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete &event_of(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  using Clock = std::chrono::steady_clock;
  const auto when = std::make_shared<Clock::time_point>();
  event_of(event).when = when;
  event_of(event).recorded =
      enqueue(stream_of(stream), "cudaEventRecord", [when] { *when = Clock::now(); });
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  const Event &first = event_of(from), &last = event_of(to);
  if (!first.timed || !last.timed || !first.recorded || !last.recorded)
    return result(cudaErrorInvalidResourceHandle);
  if (!first.recorded->done || !last.recorded->done) return cudaErrorNotReady;
  *ms = std::chrono::duration<float, std::milli>(*last.when - *first.when).count();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (waits_until_ignored > 0 && --waits_until_ignored == 0) return cudaSuccess;
  if (event_of(event).recorded) stream_of(stream).also_after.push_back(event_of(event).recorded);
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  wait_for(event_of(event).recorded);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  // To ask until it is done is to wait: once for each piece of work.
  const WorkPtr& work = event_of(event).recorded;
  if (work && !work->done && std::exchange(asked_for, work) != work) ++waits;
  return poll(event_of(event).recorded) ? cudaSuccess : cudaErrorNotReady;
}

}  // extern "C"
