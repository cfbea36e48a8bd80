// Barriers of a block and collectives of a warp. Each remembers the line that waits, so that
// threads which meet from different lines, or never, are reported with both lines.
#include <algorithm>
#include <cstring>

#include "tests/simt/engine.h"

namespace simt {
namespace {

struct Barrier {
  int arrived = 0, needed = -1, votes = 0;
  Where where;
  bool reported = false;
};
Barrier barriers[kBarriers];
const Thread* first_to_exit;
int last_votes[kBarriers];  // of the barrier's last use: read before anyone can reach the next

bool same_place(const Where& a, const Where& b) {
  return a.line() == b.line() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

void release(int id) {
  race_release_all(id);
  launch_counters.barriers += 1;
  last_votes[id] = barriers[id].votes;
  barriers[id] = {};
  const int count = block_threads();
  for (int i = 0; i < count; ++i) {
    Thread* thread = thread_at(config.schedule == Schedule::reverse ? count - 1 - i : i);
    if (thread->state == State::at_barrier && thread->barrier == id) make_ready(thread);
  }
}

// A new collective must not overlap one that other lanes wait in, nor name lanes that are gone.
void check_new_collective(Thread* thread, unsigned mask, Op op, const Where& where) {
  for (const PendingCollective& other : thread->warp->pending) {
    if ((other.mask & mask) == 0) continue;
    report("divergent-warp", line_of(where) + line_of(other.where),
           describe(thread) + " is at " + name_of(op) + " (mask " + hex(mask) + ", " +
               line_of(where) + ") while lanes " + hex(other.arrived) + " wait at " +
               name_of(other.op) + " (mask " + hex(other.mask) + ", " + line_of(other.where) + ")");
  }
  for (int lane = 0; lane < 32; ++lane) {
    const Thread* other = thread->warp->lanes[lane];
    if (((mask >> lane) & 1) == 0 || (other && other->state != State::done)) continue;
    report("divergent-warp", line_of(where),
           describe(thread) + ": " + name_of(op) + " at " + line_of(where) + " names lane " +
               std::to_string(lane) + ", which has exited or does not exist");
  }
}

PendingCollective& join(Thread* thread, unsigned mask, Op op, const Where& where) {
  std::vector<PendingCollective>& pending = thread->warp->pending;
  for (PendingCollective& other : pending) {
    if (other.mask != mask || other.op != op || ((other.arrived >> thread->lane) & 1)) continue;
    if (!same_place(other.where, where)) {
      report("divergent-warp", line_of(where) + line_of(other.where),
             describe(thread) + " at " + line_of(where) + " meets lanes " + hex(other.arrived) +
                 " at " + line_of(other.where) + " in one " + name_of(op));
    }
    return other;
  }
  check_new_collective(thread, mask, op, where);
  pending.push_back({mask, 0, op, where});
  return pending.back();
}

}  // namespace

const char* name_of(Op op) {
  static const char* const names[] = {"__syncwarp", "__shfl_sync", "vote",    "__reduce_sync",
                                      "match",      "mma.sync",    "ldmatrix"};
  return names[int(op)];
}

void reset_barriers() {
  std::fill(std::begin(barriers), std::end(barriers), Barrier{});
  first_to_exit = nullptr;
}

int barrier(int id, int threads, bool vote, Where where) {
  Thread* thread = current;
  if (threads >= 0 && (threads == 0 || threads % 32 != 0 || id <= 0 || id >= kBarriers)) {
    report("named-barrier", line_of(where),
           describe(thread) + ": bar_sync(" + std::to_string(id) + ", " + std::to_string(threads) +
               ") at " + line_of(where) + ": ids are 1 to 15, counts multiples of 32");
    return 0;
  }
  Barrier& bar = barriers[id];
  // A barrier for some warps is met from different lines: that is what it is for. But all have to
  // expect the same number of threads.
  const bool differs = threads < 0 ? !same_place(bar.where, where) : bar.needed != threads;
  if (bar.arrived == 0) {
    bar.where = where;
  } else if (differs && !bar.reported) {
    bar.reported = true;
    report("divergent-barrier", line_of(where) + line_of(bar.where),
           describe(thread) + " is at the barrier of " + line_of(where) + " while " +
               std::to_string(bar.arrived) + " threads wait at that of " + line_of(bar.where));
  }
  bar.needed = threads;
  bar.votes += vote;
  thread->where = where;
  thread->barrier = id;
  thread->state = State::at_barrier;
  race_arrive(id);
  thread->passed += threads < 0;
  if (++bar.arrived == (threads < 0 ? live_threads() : threads)) release(id);
  wait_for_turn(thread);
  race_leave(id);
  return last_votes[id];
}

void thread_exits(Thread* thread) {
  if (!thread->copies.empty()) {
    report("cp-async", line_of(thread->copies.front().where),
           describe(thread) + " exits with " + std::to_string(thread->copies.size()) +
               " asynchronous copies never waited for, the first of " +
               line_of(thread->copies.front().where));
  }
  for (const PendingCollective& other : thread->warp->pending) {
    if (((other.mask >> thread->lane) & 1) == 0) continue;
    report("divergent-warp", line_of(other.where),
           describe(thread) + " has exited although the mask " + hex(other.mask) + " of " +
               name_of(other.op) + " at " + line_of(other.where) + " names it");
  }
  // Also where the hardware lets an early exit pass, every thread has to meet the same barriers:
  // whether one that leaves early is missed must not depend on who runs first.
  if (!first_to_exit) first_to_exit = thread;
  if (thread->passed != first_to_exit->passed) {
    const Thread* more = thread->passed > first_to_exit->passed ? thread : first_to_exit;
    report("divergent-barrier", line_of(more->where),
           describe(thread) + " met " + std::to_string(thread->passed) + " barriers, thread " +
               std::to_string(first_to_exit->linear) + " met " +
               std::to_string(first_to_exit->passed) + "; the last was at " + line_of(more->where));
  }
  for (int id = 0; id < kBarriers; ++id) {
    const Barrier& bar = barriers[id];
    if (bar.arrived == 0 || bar.needed >= 0 || bar.arrived != live_threads()) continue;
    report("divergent-barrier", line_of(bar.where),
           describe(thread) + " has exited while " + std::to_string(bar.arrived) +
               " threads wait at the barrier of " + line_of(bar.where));
    release(id);  // as the hardware does
  }
}

void collective(unsigned mask, Op op, Complete complete, const void* argument, Where where) {
  Thread* thread = current;
  Warp& warp = *thread->warp;
  if (((mask >> thread->lane) & 1) == 0) {
    report("warp-mask", line_of(where),
           describe(thread) + " calls " + name_of(op) + " at " + line_of(where) +
               " with the mask " + hex(mask) + ", which does not name its lane");
    return;
  }
  thread->where = where;
  PendingCollective& mine = join(thread, mask, op, where);
  mine.arrived |= 1u << thread->lane;
  if (mine.arrived != mask) {
    thread->state = State::in_collective;
    wait_for_turn(thread);
    return;
  }
  mine = warp.pending.back();
  warp.pending.pop_back();
  launch_counters.collectives += 1;
  if (op == Op::syncwarp) race_syncwarp(warp, mask);
  if (complete) complete(warp, mask, argument);
  for (unsigned i = 0; i < 32; ++i) {
    const unsigned lane = config.schedule == Schedule::reverse ? 31 - i : i;
    if (((mask >> lane) & 1) && lane != thread->lane && warp.lanes[lane]) {
      make_ready(warp.lanes[lane]);
    }
  }
  // The last lane to arrive may go on or let the others go first.
  if (config.schedule == Schedule::random && (random_number() & 1)) {
    make_ready(thread);
    wait_for_turn(thread);
  }
}

}  // namespace simt
