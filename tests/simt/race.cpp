// Data races by vector clocks. Each thread of a block has a clock of all threads: what of theirs it
// is known to come after. Barriers and __syncwarp join clocks; a shuffle does not, as on a GPU.
// Blocks of one launch are never ordered; launches always are (one stream).
#include <algorithm>
#include <string>
#include <vector>

#include "tests/simt/engine.h"

namespace simt {
namespace {

using Clock = std::vector<uint32_t>;

int threads;
uint32_t launch_number, block_number;
std::vector<uint32_t> clocks;  // threads x threads
Clock arrived[kBarriers], released[kBarriers];

uint32_t* clock_of(int thread) { return clocks.data() + size_t(thread) * size_t(threads); }

void join(uint32_t* into, const uint32_t* from) {
  for (int i = 0; i < threads; ++i) into[i] = std::max(into[i], from[i]);
}

// Whether the access of the stamp happened before what the running thread does now.
bool ordered(const Stamp& stamp, bool global) {
  if (global && stamp.block != block_number) return false;
  return stamp.thread == current->linear ||
         clock_of(int(current->linear))[stamp.thread] >= stamp.clock;
}

// A slot for a new read: an empty or an outdated one, else any. Outdated reads can go, because who
// races with them races with the new one too.
Stamp& slot_for(Cell& cell, uint8_t bytes, bool global) {
  for (Stamp& read : cell.reads) {
    if (read.bytes == 0 || ((read.bytes & ~bytes) == 0 && ordered(read, global))) return read;
  }
  static uint32_t state = 12345;
  state = state * 1664525u + 1013904223u;
  return cell.reads[(state >> 16) % 3];
}

}  // namespace

void race_start_launch(int thread_count) {
  threads = thread_count;
  ++launch_number;
}

void race_start_block(uint32_t block) {
  if (!checking()) return;
  block_number = block;
  clocks.assign(size_t(threads) * size_t(threads), 0);
  for (int i = 0; i < threads; ++i) clock_of(i)[i] = 1;
  for (int i = 0; i < kBarriers; ++i) {
    arrived[i].assign(size_t(threads), 0);
    released[i].assign(size_t(threads), 0);
  }
}

void race_arrive(int barrier) {
  if (!checking()) return;
  uint32_t* mine = clock_of(int(current->linear));
  join(arrived[barrier].data(), mine);
  ++mine[current->linear];
}

void race_release_all(int barrier) {
  if (!checking()) return;
  released[barrier] = arrived[barrier];
  std::fill(arrived[barrier].begin(), arrived[barrier].end(), 0);
}

void race_leave(int barrier) {
  if (checking()) join(clock_of(int(current->linear)), released[barrier].data());
}

void race_syncwarp(const Warp& warp, unsigned mask) {
  if (!checking()) return;
  Clock joined(size_t(threads), 0);
  for (int lane = 0; lane < 32; ++lane) {
    if (((mask >> lane) & 1) && warp.lanes[lane]) {
      join(joined.data(), clock_of(int(warp.lanes[lane]->linear)));
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    if (((mask >> lane) & 1) == 0 || !warp.lanes[lane]) continue;
    const unsigned thread = warp.lanes[lane]->linear;
    uint32_t* clock = clock_of(int(thread));
    const uint32_t own = clock[thread];
    std::copy(joined.begin(), joined.end(), clock);
    clock[thread] = own + 1;
  }
}

void race_check(Cell& cell, uint8_t bytes, Access access, bool atomic, bool global, Site site) {
  if (global && cell.launch != launch_number) cell = {launch_number, {}, {}};
  auto conflict = [&](const Stamp& stamp, const char* kind) {
    if ((stamp.bytes & bytes) == 0 || (atomic && stamp.atomic) || ordered(stamp, global)) return;
    report("race", site.line() + kind,
           std::string(kind) + " in " + (global ? "device" : "shared") + " memory: block " +
               std::to_string(stamp.block) + " thread " + std::to_string(stamp.thread) +
               " against block " + std::to_string(block_number) + " thread " +
               std::to_string(current->linear) + ", " + site.line());
  };
  const bool store = access == Access::store;
  conflict(cell.write, store ? "write after write" : "read after write");
  const Stamp now{block_number, clock_of(int(current->linear))[current->linear],
                  uint16_t(current->linear), bytes, atomic};
  if (store) {
    for (const Stamp& read : cell.reads) conflict(read, "write after read");
    cell.write = now;
  } else {
    slot_for(cell, bytes, global) = now;
  }
}

}  // namespace simt
