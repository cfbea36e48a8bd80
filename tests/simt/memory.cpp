// Device memory: an arena that is never reused, so that a stale pointer stays recognisable, with a
// gap after each allocation and, for each word, which bytes exist and which were written.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/simt/engine.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

extern "C" const char __executable_start, _end;  // this program's image, from the linker

namespace simt {
namespace {

constexpr size_t kGranule = 256, kGap = 256;

struct Arena {
  unsigned char* memory;
  size_t used;                                  // of the usable part, the first gap included
  std::map<const unsigned char*, size_t> live;  // begin: bytes
  std::map<const char*, size_t> host;           // memory of the host that kernels may touch
};

// Address space only: pages get memory when they are touched.
template <class T>
T* reserve(size_t count) {
  void* memory = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("simt: address space for device memory");
    std::abort();
  }
  return static_cast<T*>(memory);
}

Arena& arena() {
  static Arena one = [] {
    auto* memory = reserve<unsigned char>(kDeviceArena);
    if (mprotect(memory + kUsableArena, kDeviceArena - kUsableArena, PROT_NONE) != 0) {
      std::perror("simt: protecting reserved device memory");
      std::abort();
    }
    device = {reinterpret_cast<uintptr_t>(memory), reserve<uint8_t>(kDeviceArena / 4),
              reserve<Cell>(kDeviceArena / 4)};
    return Arena{memory, kGap, {}, {}};
  }();
  return one;
}

template <class F>
void for_each_state(const void* pointer, size_t bytes, F f) {
  for_each_word(pointer, bytes,
                [&](uintptr_t word, uint8_t mask) { f(device.states[device.word(word)], mask); });
}

size_t rounded(size_t bytes) { return (bytes + kGranule - 1) / kGranule * kGranule; }

}  // namespace

DeviceMemory device;

void* device_malloc(size_t bytes) {
  Arena& a = arena();
  unsigned char* pointer = a.memory + a.used;
  const size_t taken = rounded(bytes) + kGap;
  if (bytes > kUsableArena || a.used + taken > kUsableArena) {
    std::fprintf(stderr, "simt: %zu bytes asked for, %zu of %zu used (freed memory stays used)\n",
                 bytes, a.used, kUsableArena);
    std::abort();
  }
  a.used += taken;
  a.live[pointer] = bytes;
  std::memset(pointer, 0xff, bytes);
  for_each_state(pointer, bytes, [](uint8_t& state, uint8_t mask) { state |= mask; });
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(pointer + bytes, taken - bytes);
#endif
  return pointer;
}

// The first gap that is wide enough: a step of a large model allocates many times its peak.
void* device_reserve(size_t bytes) {
  Arena& a = arena();
  unsigned char* pointer = a.memory + kUsableArena;
  const size_t taken = rounded(bytes) + kGap;
  for (auto next = a.live.lower_bound(pointer); next != a.live.end(); ++next) {
    if (pointer + taken <= next->first) break;
    pointer = const_cast<unsigned char*>(next->first) + rounded(next->second) + kGap;
  }
  if (bytes > kDeviceArena || pointer + taken > a.memory + kDeviceArena) {
    std::fprintf(stderr, "simt: %zu bytes asked for, no gap among the %zu bytes to reserve\n",
                 bytes, kDeviceArena - kUsableArena);
    std::abort();
  }
  a.live[pointer] = bytes;
  return pointer;
}

bool is_reserved(const void* pointer) {
  return in_device_memory(pointer) &&
         reinterpret_cast<uintptr_t>(pointer) - device.begin >= kUsableArena;
}

void device_free(void* pointer) {
  Arena& a = arena();
  const auto entry = a.live.find(static_cast<unsigned char*>(pointer));
  if (entry == a.live.end()) {
    report("free", "", "device_free of a pointer that is no live allocation");
    return;
  }
  const size_t bytes = entry->second;
  a.live.erase(entry);
  if (is_reserved(pointer)) return;
  for_each_state(pointer, bytes, [](uint8_t& state, uint8_t) { state = 0; });
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(pointer, bytes);
#endif
  // Whole pages go back to the system; their content is not needed any more.
  constexpr uintptr_t kPage = 4096;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(pointer) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(pointer) + bytes) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

bool is_device(const void* pointer) { return in_device_memory(pointer); }

bool in_allocation(const void* pointer, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(pointer);
  auto entry = arena().live.upper_bound(p);
  if (entry == arena().live.begin()) return false;
  --entry;
  return p + bytes <= entry->first + entry->second;
}

void mark_written(const void* pointer, size_t bytes) {
  for_each_state(pointer, bytes, [](uint8_t& state, uint8_t mask) { state |= uint8_t(mask << 4); });
}
void mark_unwritten(const void* pointer, size_t bytes) {
  for_each_state(pointer, bytes,
                 [](uint8_t& state, uint8_t mask) { state &= uint8_t(~(mask << 4)); });
}

void allow_host(const void* pointer, size_t bytes) {
  arena().host[static_cast<const char*>(pointer)] = bytes;
}
void forbid_host(const void* pointer) { arena().host.erase(static_cast<const char*>(pointer)); }

bool host_allowed(const volatile void* pointer) {
  const auto* p = const_cast<const char*>(static_cast<const volatile char*>(pointer));
  if (p >= &__executable_start && p < &_end) return true;  // constants and statics of this program
  auto entry = arena().host.upper_bound(p);
  if (entry == arena().host.begin()) return false;
  --entry;
  return p < entry->first + entry->second;
}

}  // namespace simt
