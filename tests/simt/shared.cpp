// Shared memory of the running block, one arena: [dynamic | gap | static array | gap | ...]. It is
// filled with NaN for each block; nothing may touch the gaps.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/simt/engine.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace simt {

unsigned char* shared_base = nullptr;

namespace {

constexpr size_t kGap = 64;
size_t dynamic_end, static_end;
std::map<const SharedArray*, size_t> static_arrays;  // offset
const Kernel* running = nullptr;

void open(size_t offset, size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(shared_base + offset, bytes);
#endif
  std::memset(shared_base + offset, 0xff, bytes);
  shared_exists(offset, bytes);
}

}  // namespace

void reset_shared(size_t dynamic_bytes, const Kernel& kernel) {
  running = &kernel;
  static auto* const arena = static_cast<unsigned char*>(std::aligned_alloc(4096, kSharedArena));
  shared_base = arena;
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(arena, kSharedArena);
#endif
  static_arrays.clear();
  dynamic_end = static_end = dynamic_bytes;
  open(0, dynamic_bytes);
}

unsigned char* dynamic_shared() { return shared_base; }

void* static_shared(const SharedArray* array) {
  auto [entry, fresh] = static_arrays.try_emplace(array, 0);
  if (fresh) {
    if (std::find(running->arrays.begin(), running->arrays.end(), array) == running->arrays.end()) {
      report("launch", running->symbol,
             running->symbol +
                 ": a SHARED_ARRAY stands in a function that the kernel calls, where "
                 "the limits of the launch do not see it; move it into the kernel");
    }
    const size_t offset =
        (static_end + kGap + array->alignment - 1) / array->alignment * array->alignment;
    static_end = offset + array->bytes;
    if (static_end > kSharedArena) {
      std::fprintf(stderr, "simt: static shared memory is larger than a GPU's\n");
      std::abort();
    }
    entry->second = offset;
    open(offset, array->bytes);
  }
  return shared_base + entry->second;
}

uint32_t shared_offset(const void* pointer, Where where) {
  const ptrdiff_t offset = static_cast<const unsigned char*>(pointer) - shared_base;
  if (offset >= 0 && size_t(offset) < kSharedArena) return uint32_t(offset);
  report("shared-oob", line_of(where),
         describe(current) + ": address outside of shared memory at " + line_of(where));
  return 0;
}

void* shared_at(uint32_t offset, size_t bytes, const char* what, Where where) {
  if (offset % bytes != 0) {
    report("misaligned", line_of(where),
           describe(current) + ": " + what + " of " + std::to_string(bytes) +
               " bytes at the shared offset " + std::to_string(offset) + ", " + line_of(where));
  }
  const size_t end = offset + bytes;
  if (end <= dynamic_end || (offset >= dynamic_end + kGap && end <= static_end)) {
    return shared_base + offset;
  }
  report("shared-oob", line_of(where),
         describe(current) + ": " + what + " of " + std::to_string(bytes) +
             " bytes at the shared offset " + std::to_string(offset) + " of " +
             std::to_string(dynamic_end) + ", " + line_of(where));
  return nullptr;
}

}  // namespace simt
