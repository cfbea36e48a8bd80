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
uint32_t blocks_so_far;        // in all launches
std::vector<uint32_t> clocks;  // threads x threads
Clock arrived[kBarriers], released[kBarriers];

uint32_t* clock_of(int thread) { return clocks.data() + size_t(thread) * size_t(threads); }

void join(uint32_t* into, const uint32_t* from) {
  for (int i = 0; i < threads; ++i) into[i] = std::max(into[i], from[i]);
}

// An access of the running thread, whose clock is `clock`.
struct Now {
  uint32_t thread;
  const uint32_t* clock;
  bool global;

  // Whether the access of the stamp happened before.
  bool after(const Stamp& stamp) const {
    if (global && stamp.block != block_number) return false;
    return stamp.thread == thread || clock[stamp.thread] >= stamp.clock;
  }
};

// A slot for a new read: an empty or an outdated one, else any. Outdated reads can go, because who
// races with them races with the new one too.
Stamp& slot_for(Cell& cell, uint8_t bytes, const Now& now) {
  for (Stamp& read : cell.reads) {
    if (read.bytes == 0 || ((read.bytes & ~bytes) == 0 && now.after(read))) return read;
  }
  static uint32_t state = 12345;
  state = state * 1664525u + 1013904223u;
  return cell.reads[(state >> 16) % 3];
}

void report_race(const Stamp& stamp, const char* kind, bool global, const Site& site) {
  report("race", site.line() + kind,
         std::string(kind) + " in " + (global ? "device" : "shared") + " memory: block " +
             std::to_string(stamp.block) + " thread " + std::to_string(stamp.thread) +
             " against block " + std::to_string(block_number) + " thread " +
             std::to_string(current->linear) + ", " + site.line());
}

}  // namespace

void race_start_launch(int thread_count) {
  threads = thread_count;
  ++launch_number;
}

void race_start_block(uint32_t block) {
  if (!checking()) return;
  block_number = block;
  ++blocks_so_far;
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

void race_check(Cell& cell, uint8_t bytes, Access access, bool atomic, bool global,
                const Site& site) {
  const uint32_t epoch = global ? launch_number : blocks_so_far;
  if (cell.epoch != epoch) cell = {epoch, {}, {}};
  const uint32_t thread = current->linear;
  const Now now{thread, clock_of(int(thread)), global};
  auto conflict = [&](const Stamp& stamp, const char* kind) {
    if ((stamp.bytes & bytes) == 0 || (atomic && stamp.atomic) || now.after(stamp)) return;
    report_race(stamp, kind, global, site);
  };
  const bool store = access == Access::store;
  conflict(cell.write, store ? "write after write" : "read after write");
  const Stamp stamp{block_number, now.clock[thread], uint16_t(thread), bytes, atomic};
  if (store) {
    for (const Stamp& read : cell.reads) conflict(read, "write after read");
    cell.write = stamp;
  } else {
    slot_for(cell, bytes, now) = stamp;
  }
}

}  // namespace simt
