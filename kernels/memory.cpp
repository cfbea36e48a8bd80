#include "kernels/memory.h"

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "kernels/dry.h"

namespace rodimus::memory {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kSmallest = 256;
constexpr size_t kHugePage = size_t{2} << 20;

size_t size_class(size_t bytes) {
  const size_t wanted = std::max(bytes, kSmallest);
  // Multiples of the alignment: no cache line belongs to two blocks.
  const size_t step = std::max(std::bit_floor(wanted) / 8, kAlignment);
  return (wanted + step - 1) / step * step;
}

// Large blocks lie on huge pages where the system grants them on request: a pass over tensors of
// many streams would miss the TLB at every page of each, and the first touch faults once per 2 MiB.
// A refusal costs only that speed. Null: out of memory.
std::byte* allocate_block(size_t bytes) {
  const bool large = bytes >= 2 * kHugePage;
  void* block = nullptr;
  if (posix_memalign(&block, large ? kHugePage : kAlignment, bytes) != 0) return nullptr;
  if (large) (void)madvise(block, bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(block);
}

struct Pool {
  std::mutex mutex;
  std::unordered_map<size_t, std::vector<std::byte*>> free;
  Stats stats;

  static void free_block(std::byte* block) { std::free(block); }

  std::byte* take(size_t bytes) {
    const std::lock_guard lock(mutex);
    stats.in_use += static_cast<int64_t>(bytes);
    stats.peak = std::max(stats.peak, stats.in_use);
    auto& blocks = free[bytes];
    if (!blocks.empty()) {
      std::byte* block = blocks.back();
      blocks.pop_back();
      return block;
    }
    std::byte* block = allocate_block(bytes);
    if (block == nullptr) {
      stats.in_use -= static_cast<int64_t>(bytes);
      fail("out of memory: asked for ", bytes, " bytes with ", stats.in_use,
           " in use; use a machine with more memory, or reduce its use: in training by a smaller "
           "run.micro_batch or run.recompute = true, otherwise by a shorter text or fewer "
           "sequences at once");
    }
    stats.reserved += static_cast<int64_t>(bytes);
    ++stats.system_calls;
    return block;
  }

  void give_back(std::byte* block, size_t bytes) noexcept {
    const std::lock_guard lock(mutex);
    stats.in_use -= static_cast<int64_t>(bytes);
    free[bytes].push_back(block);
  }
};

Pool& pool() {
  static Pool* instance =
      new Pool;  // never destroyed: tensors in static storage may outlive any order we pick
  return *instance;
}

}  // namespace

Stats stats(Device device) {
  CHECK(device != Device::dry, "memory::stats of a dry run: DryMemory has them");
  if (device == Device::cuda) return gpu::stats();
  const std::lock_guard lock(pool().mutex);
  return pool().stats;
}

void reset_peak() {
  gpu::reset_peak();
  const std::lock_guard lock(pool().mutex);
  pool().stats.peak = pool().stats.in_use;
}

void release_cached() {
  gpu::release_cached();
  const std::lock_guard lock(pool().mutex);
  for (auto& [bytes, blocks] : pool().free) {
    pool().stats.reserved -= static_cast<int64_t>(bytes * blocks.size());
    for (std::byte* block : blocks) Pool::free_block(block);
    blocks.clear();
  }
}

void copy(Cpu&, void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;  // of empty tensors, whose pointers may be null
  std::memmove(to, from, static_cast<size_t>(bytes));
}

void upload(Cpu& cpu, void* to, const void* from, int64_t bytes) { copy(cpu, to, from, bytes); }
void download(Cpu& cpu, void* to, const void* from, int64_t bytes) { copy(cpu, to, from, bytes); }

int64_t taken(int64_t bytes, Device device) {
  CHECK(device != Device::dry, "memory::taken: a dry run stands for another device");
  // An empty tensor on the GPU has an address too, and the pool rejects 0.
  if (device == Device::cuda) return std::max<int64_t>(bytes, 16);
  return static_cast<int64_t>(size_class(static_cast<size_t>(bytes)));
}

std::shared_ptr<std::byte> allocate(size_t bytes, Device device) {
  CHECK(!omp_in_parallel(), "memory::allocate: ", bytes,
        " bytes inside a parallel region, where an Error would end the program");
  if (device == Device::cuda) return gpu::allocate(bytes);
  if (device == Device::dry)
    return DryMemory::of_this_thread().allocate(static_cast<int64_t>(bytes));
  const size_t rounded = size_class(bytes);
  return {pool().take(rounded), [rounded](std::byte* block) { pool().give_back(block, rounded); }};
}

}  // namespace rodimus::memory
