// Every load and store of a kernel: alignment, bounds, initialisation, host memory. Races and
// counts are in race.cpp and count.cpp.
#include <algorithm>
#include <vector>

#include "tests/simt/engine.h"

namespace simt {
namespace {

std::vector<uint8_t> shared_states(kSharedArena / 4);  // as the states of device memory
std::vector<Cell> shared_cells(kSharedArena / 4);
size_t shared_end = 0;  // all states from here on are zero

std::string message(const char* what, Access access, size_t bytes, const Site& site) {
  return describe(current) + ": " + (access == Access::load ? "load" : "store") + " of " +
         std::to_string(bytes) + " bytes " + what + ", " + site.line();
}

void check_word(uint8_t& state, uint8_t mask, Cell& cell, size_t bytes, Access access, bool atomic,
                bool global, const Site& site) {
  const char* space = global ? "device" : "shared";
  if ((state & mask) != mask) {
    report(global ? "global-oob" : "shared-oob", site.line(),
           message(("outside of any allocation in " + std::string(space) + " memory").c_str(),
                   access, bytes, site));
    return;
  }
  if (access == Access::load && ((state >> 4) & mask) != mask) {
    report("uninit", site.line(),
           message(("from never written " + std::string(space) + " memory").c_str(), access, bytes,
                   site));
  }
  state |= uint8_t(mask << 4);  // a load too: one report is enough
  race_check(cell, mask, access, atomic, global, site);
}

void check_inside(const volatile void* pointer, size_t bytes, Access access, const Site& site,
                  bool atomic) {
  if (in_shared(pointer)) {
    const size_t first = size_t(static_cast<const volatile unsigned char*>(pointer) - shared_base);
    if (first + bytes > kSharedArena) {
      report("shared-oob", site.line(), message("past shared memory", access, bytes, site));
      return;
    }
    for_each_word(pointer, bytes, [&](uintptr_t word, uint8_t mask) {
      const size_t i = (word - reinterpret_cast<uintptr_t>(shared_base)) / 4;
      check_word(shared_states[i], mask, shared_cells[i], bytes, access, atomic, false, site);
    });
  } else if (in_device_memory(pointer)) {
    for_each_word(pointer, bytes, [&](uintptr_t word, uint8_t mask) {
      const size_t i = device.word(word);
      check_word(device.states[i], mask, device.cells[i], bytes, access, atomic, true, site);
    });
  } else if (!host_allowed(pointer)) {
    report("host-memory", site.line(), message("in the host's memory", access, bytes, site));
  }
}

}  // namespace

std::string Site::line() const { return where ? line_of(*where) : line_of_code(code); }

void shared_exists(size_t offset, size_t bytes) {
  if (!checking()) return;
  if (offset == 0) {  // the dynamic part comes first: a new block
    std::fill_n(shared_states.begin(), (shared_end + 3) / 4, 0);
    shared_end = 0;
  }
  shared_end = std::max(shared_end, offset + bytes);
  for (size_t i = offset; i < offset + bytes; ++i) {
    shared_states[i / 4] |= uint8_t(1u << (i & 3));
  }
}

void shared_unwritten(size_t offset, size_t bytes) {
  for_each_word(shared_base + offset, bytes, [](uintptr_t word, uint8_t mask) {
    const size_t i = (word - reinterpret_cast<uintptr_t>(shared_base)) / 4;
    shared_states[i] &= uint8_t(~(mask << 4));
  });
}

void check_access(const volatile void* pointer, size_t bytes, Access access, const Site& site,
                  bool atomic) {
  if (!current) {
    // Code of the host in a kernel source: on a real machine this faults, or is slow beyond use.
    if (is_race_build() && in_device_memory(pointer)) {
      report("device-memory", site.line(),
             "the host touches device memory outside of a kernel, " + site.line());
    }
    return;
  }
  const bool power_of_two = (bytes & (bytes - 1)) == 0;
  if (power_of_two && !site.any_alignment &&
      reinterpret_cast<uintptr_t>(pointer) & (std::min<size_t>(bytes, 16) - 1) &&
      (in_shared(pointer) || in_device_memory(pointer))) {
    report("misaligned", site.line(), message("is misaligned", access, bytes, site));
  }
  if (checking()) check_inside(pointer, bytes, access, site, atomic);
}

void on_access(const volatile void* pointer, size_t bytes, Access access, const Site& site,
               bool atomic) {
  if (on_own_stack(pointer)) return;
  if (current && config.count) count_access(pointer, bytes, access, site);
  check_access(pointer, bytes, access, site, atomic);
}

}  // namespace simt
