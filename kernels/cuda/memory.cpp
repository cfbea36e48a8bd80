// Memory of the GPU comes from the driver's stream-ordered pool (cudaMallocAsync) with its release
// threshold at infinity, so that it caches like our pool on the host. Not own free lists over
// cudaMalloc: the pool orders reuse with the stream by itself, defragments by remapping pages, and
// every tensor stays an allocation of its own for compute-sanitizer and for the checks of the test
// suite, at about a microsecond of host time per call.
//
// Copies between host and device go through a ring of pinned buffers: pageable memory would make
// the driver wait for the stream.
#include "kernels/memory.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>

#include "kernels/bad_input.h"
#include "kernels/cuda/faults.h"
#include "kernels/cuda/runtime.h"

namespace rodimus::memory {
namespace {

cudaMemPool_t pool_of_device() {
  static const cudaMemPool_t pool = [] {
    cudaMemPool_t found = nullptr;
    CUDA_CHECK(cudaDeviceGetDefaultMemPool(&found, cuda::gpu_in_use().device));
    uint64_t all = UINT64_MAX;
    CUDA_CHECK(cudaMemPoolSetAttribute(found, cudaMemPoolAttrReleaseThreshold, &all));
    return found;
  }();
  return pool;
}

int64_t reserved_bytes() {
  uint64_t bytes = 0;
  CUDA_CHECK(cudaMemPoolGetAttribute(pool_of_device(), cudaMemPoolAttrReservedMemCurrent, &bytes));
  return static_cast<int64_t>(bytes);
}

std::mutex stats_mutex;
Stats stats_now;

// Pinned buffers in turn. A buffer is written again when the copy out of it has been done.
class Ring {
 public:
  static constexpr size_t kBytes = size_t{1} << 20;

  struct Slot {
    std::byte* data = nullptr;
    cudaEvent_t done = nullptr;
  };
  // The next buffer, free to use. The caller records `done` behind its copy.
  Slot& next() {
    Slot& slot = slots_[turn_++ % slots_.size()];
    if (slot.data == nullptr) {
      void* data = nullptr;
      CUDA_CHECK(cudaHostAlloc(&data, kBytes, cudaHostAllocDefault));
      CUDA_CHECK(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming));
      slot.data = static_cast<std::byte*>(data);
    } else {
      CUDA_CHECK(cudaEventSynchronize(slot.done));
    }
    return slot;
  }

 private:
  std::array<Slot, 16> slots_;
  size_t turn_ = 0;
};

std::mutex ring_mutex;
Ring& ring() {
  static Ring* instance = new Ring;  // never destroyed: the runtime may be gone before us
  return *instance;
}

[[noreturn]] void throw_fault(cuda::Fault fault, const cuda::FaultWords& words) {
  const auto position = static_cast<int64_t>(words.first_bad >> 32);
  const auto value = static_cast<int32_t>(words.first_bad & 0xffffffffu);
  const auto vocab = static_cast<int64_t>(words.limit);
  if (fault == cuda::Fault::token_id) fail_token_id(value, position, vocab);
  fail_target(value, position, vocab);
}

}  // namespace

namespace gpu {

std::shared_ptr<std::byte> allocate(size_t bytes) {
  const auto wanted = static_cast<size_t>(taken(static_cast<int64_t>(bytes), Device::cuda));
  void* block = nullptr;
  CUstream_st* const stream = cuda::gpu_in_use().stream;
  cudaError_t error = cudaMallocFromPoolAsync(&block, wanted, pool_of_device(), stream);
  const std::lock_guard lock(stats_mutex);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    fail("out of GPU memory: asked for ", bytes, " bytes with ", stats_now.in_use, " in use and ",
         reserved_bytes(), " reserved (", cudaGetErrorName(error),
         "); use a smaller run.micro_batch, run.recompute = true, or more GPUs");
  }
  const int64_t reserved = reserved_bytes();
  if (reserved > stats_now.reserved) ++stats_now.system_calls;
  stats_now.reserved = reserved;
  stats_now.in_use += static_cast<int64_t>(wanted);
  stats_now.peak = std::max(stats_now.peak, stats_now.in_use);
  // An error here means that the process is ending and the runtime is gone.
  return {static_cast<std::byte*>(block), [wanted, stream](std::byte* freed) {
            (void)cudaFreeAsync(freed, stream);
            const std::lock_guard inner(stats_mutex);
            stats_now.in_use -= static_cast<int64_t>(wanted);
          }};
}

Stats stats() {
  const std::lock_guard lock(stats_mutex);
  return stats_now;
}

void reset_peak() {
  const std::lock_guard lock(stats_mutex);
  stats_now.peak = stats_now.in_use;
}

void release_cached() {
  if (stats().system_calls == 0) return;  // no GPU in use
  CUDA_CHECK(cudaStreamSynchronize(cuda::gpu_in_use().stream));
  CUDA_CHECK(cudaMemPoolTrimTo(pool_of_device(), 0));
  const std::lock_guard lock(stats_mutex);
  stats_now.reserved = reserved_bytes();
}

}  // namespace gpu

void copy(Cuda& gpu, void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  CUDA_CHECK(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, gpu.stream));
}

void upload(Cuda& gpu, void* to, const void* from, int64_t bytes) {
  const std::lock_guard lock(ring_mutex);
  const auto size = static_cast<size_t>(bytes);
  for (size_t begin = 0; begin < size; begin += Ring::kBytes) {
    const size_t count = std::min(Ring::kBytes, size - begin);
    Ring::Slot& slot = ring().next();
    std::memcpy(slot.data, static_cast<const std::byte*>(from) + begin, count);
    CUDA_CHECK(cudaMemcpyAsync(static_cast<std::byte*>(to) + begin, slot.data, count,
                               cudaMemcpyHostToDevice, gpu.stream));
    CUDA_CHECK(cudaEventRecord(slot.done, gpu.stream));
  }
}

void download(Cuda& gpu, void* to, const void* from, int64_t bytes) {
  const std::lock_guard lock(ring_mutex);
  const auto size = static_cast<size_t>(bytes);
  // One piece is on its way while the piece before it is copied out.
  struct Piece {
    Ring::Slot* slot = nullptr;
    size_t begin = 0, count = 0;
  } before;
  const auto finish = [&](const Piece& piece) {
    if (piece.slot == nullptr) return;
    CUDA_CHECK(cudaEventSynchronize(piece.slot->done));
    std::memcpy(static_cast<std::byte*>(to) + piece.begin, piece.slot->data, piece.count);
  };
  for (size_t begin = 0; begin < size; begin += Ring::kBytes) {
    const Piece piece{&ring().next(), begin, std::min(Ring::kBytes, size - begin)};
    CUDA_CHECK(cudaMemcpyAsync(piece.slot->data, static_cast<const std::byte*>(from) + begin,
                               piece.count, cudaMemcpyDeviceToHost, gpu.stream));
    CUDA_CHECK(cudaEventRecord(piece.slot->done, gpu.stream));
    finish(before);
    before = piece;
  }
  Ring::Slot& fault_slot = ring().next();
  std::array<cuda::FaultWords, cuda::kFaults> faults;
  CUDA_CHECK(cudaMemcpyAsync(fault_slot.data, gpu.faults, sizeof(faults), cudaMemcpyDeviceToHost,
                             gpu.stream));
  CUDA_CHECK(cudaEventRecord(fault_slot.done, gpu.stream));
  CUDA_CHECK(cudaEventSynchronize(fault_slot.done));  // and with it the last piece: one wait
  finish(before);
  std::memcpy(faults.data(), fault_slot.data, sizeof(faults));
  for (int kind = 0; kind < cuda::kFaults; ++kind) {
    if (faults[static_cast<size_t>(kind)].first_bad == cuda::kNoFault) continue;
    CUDA_CHECK(cudaMemsetAsync(gpu.faults, 0xff, sizeof(faults), gpu.stream));
    throw_fault(static_cast<cuda::Fault>(kind), faults[static_cast<size_t>(kind)]);
  }
}

}  // namespace rodimus::memory
