// What -fsanitize=thread makes the compiler call for each load and store. The library that usually
// answers is not linked: the emulator does.
#include "tests/simt/engine.h"

namespace simt {
namespace {
bool race_build = false;
}
bool is_race_build() { return race_build; }
}  // namespace simt

#define HERE \
  simt::Site { __builtin_return_address(0) }
#define HERE_ANY_ALIGNMENT \
  simt::Site { __builtin_return_address(0), nullptr, true }
#define LOAD(name, bytes, site) \
  void name(void* pointer) { access(pointer, bytes, simt::Access::load, site); }
#define STORE(name, bytes, site) \
  void name(void* pointer) { access(pointer, bytes, simt::Access::store, site); }
#define ALL(bytes)                                                \
  LOAD(__tsan_read##bytes, bytes, HERE)                           \
  STORE(__tsan_write##bytes, bytes, HERE)                         \
  LOAD(__tsan_unaligned_read##bytes, bytes, HERE_ANY_ALIGNMENT)   \
  STORE(__tsan_unaligned_write##bytes, bytes, HERE_ANY_ALIGNMENT) \
  LOAD(__tsan_volatile_read##bytes, bytes, HERE)                  \
  STORE(__tsan_volatile_write##bytes, bytes, HERE)

namespace {
// Most accesses end here, so this part is inlined into each of the calls.
inline void access(void* pointer, size_t bytes, simt::Access access, const simt::Site& site) {
  if (!simt::on_own_stack(pointer)) simt::on_access(pointer, bytes, access, site);
}
}  // namespace

extern "C" {
ALL(1)
ALL(2)
ALL(4)
ALL(8)
ALL(16)
void __tsan_read_range(void* pointer, size_t bytes) {
  simt::on_access(pointer, bytes, simt::Access::load, HERE_ANY_ALIGNMENT);
}
void __tsan_write_range(void* pointer, size_t bytes) {
  simt::on_access(pointer, bytes, simt::Access::store, HERE_ANY_ALIGNMENT);
}
void __tsan_init() { simt::race_build = true; }  // called at start by each instrumented source
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
// The host code of a kernel source counts references (shared_ptr).
int __tsan_atomic32_fetch_add(volatile int* pointer, int value, int) {
  return __atomic_fetch_add(pointer, value, __ATOMIC_SEQ_CST);
}
}
