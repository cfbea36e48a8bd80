// Threads of a block as fibers: who runs next, and the launch of a grid, block after block.
#include <sys/mman.h>

#include <algorithm>
#include <boost/context/detail/fcontext.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>

#include "tests/simt/engine.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

dim3 blockDim, gridDim;

namespace simt {

Config config;
EnqueueHook enqueue_hook;
constinit thread_local Thread* current = nullptr;
uint3 block_index;

namespace {

namespace fiber = boost::context::detail;

struct Ready {
  uint32_t priority;
  Thread* thread;
};
struct Scheduler {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<Ready> ready;  // [head, end): FIFO, out of which random and greedy pick
  size_t head = 0;
  int block_threads = 0, live = 0;
  bool stuck = false;
  const std::function<void()>* body = nullptr;
  fiber::fcontext_t launcher = nullptr;
  const void* launcher_stack = nullptr;
  size_t launcher_stack_bytes = 0;
  void* launcher_fake_stack = nullptr;
  std::vector<char*> stacks;
  std::mt19937_64 random;
};
Scheduler scheduler;

// Saves the context that we came from: a thread's, or the launcher's when there is none.
void save_origin(fiber::transfer_t origin) {
  if (origin.data) {
    static_cast<Thread*>(origin.data)->context = origin.fctx;
  } else {
    scheduler.launcher = origin.fctx;
  }
}

// Null stands for the launcher, on either side.
void switch_to(Thread* from, Thread* to) {
#if defined(__SANITIZE_ADDRESS__)
  void** fake = from ? &from->asan_fake_stack : &scheduler.launcher_fake_stack;
  __sanitizer_start_switch_fiber(fake, to ? to->stack : scheduler.launcher_stack,
                                 to ? kStackBytes : scheduler.launcher_stack_bytes);
#endif
  current = to;
  save_origin(fiber::jump_fcontext(to ? to->context : scheduler.launcher, from));
#if defined(__SANITIZE_ADDRESS__)
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(*fake, &stack, &bytes);
#endif
}

// The greedy schedule has a fixed order of the warps: the one with the smallest number runs
// whenever it can.
Ready ready_entry(Thread* thread) {
  const uint32_t warp = thread->linear / 32;
  return {(warp * 2654435761u + uint32_t(config.seed) * 40503u) * 2246822519u, thread};
}

Thread* take_ready() {
  Scheduler& s = scheduler;
  if (s.head == s.ready.size()) {
    s.ready.clear();
    s.head = 0;
    return nullptr;
  }
  size_t pick = s.head;
  if (config.schedule == Schedule::random) {
    pick += s.random() % (s.ready.size() - s.head);
  } else if (config.schedule == Schedule::greedy) {
    for (size_t i = pick + 1; i < s.ready.size(); ++i) {
      if (s.ready[i].priority < s.ready[pick].priority) pick = i;
    }
  }
  std::swap(s.ready[s.head], s.ready[pick]);
  return s.ready[s.head++].thread;
}

void report_deadlock() {
  int waiting = 0;
  std::string who;
  for (const Thread& thread : scheduler.threads) {
    if (thread.state != State::at_barrier && thread.state != State::in_collective) continue;
    if (++waiting <= 3) {
      who += " thread " + std::to_string(thread.linear) + " at " + line_of(thread.where) + ";";
    }
  }
  report("deadlock", who,
         describe(scheduler.threads.data()) + ": " + std::to_string(waiting) +
             " threads wait forever, " + std::to_string(scheduler.block_threads - waiting) +
             " have exited:" + who);
  scheduler.stuck = true;
}

// Runs another thread, or the launcher when all are done or the block is stuck.
void yield() {
  Thread* next = scheduler.stuck ? nullptr : take_ready();
  if (!next && !scheduler.stuck && scheduler.live > 0) report_deadlock();
  if (next != current || !next) switch_to(current, next);
}

void start_of_fiber(fiber::transfer_t origin) {
#if defined(__SANITIZE_ADDRESS__)
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (!origin.data) {
    scheduler.launcher_stack = stack;
    scheduler.launcher_stack_bytes = bytes;
  }
#endif
  save_origin(origin);
  (*scheduler.body)();
  current->state = State::done;
  --scheduler.live;
  thread_exits(current);
  for (;;) yield();
}

void allocate_stacks(int count) {
  while (int(scheduler.stacks.size()) < count) {
    constexpr size_t kGuard = 4096;
    void* memory = mmap(nullptr, kStackBytes + kGuard, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE) != 0) {
      std::perror("simt: stack of a fiber");
      std::abort();
    }
    scheduler.stacks.push_back(static_cast<char*>(memory) + kGuard);
  }
}

void start_threads(dim3 block) {
  Scheduler& s = scheduler;
  s.stuck = false;
  s.live = s.block_threads;
  s.ready.clear();
  s.head = 0;
  reset_barriers();
  for (Warp& warp : s.warps) warp = {};
  for (int i = 0; i < s.block_threads; ++i) {
    Thread& thread = s.threads[i];
    const auto linear = unsigned(i);
    thread.linear = linear;
    thread.lane = linear % 32;
    thread.warp = &s.warps[linear / 32];
    thread.warp->lanes[thread.lane] = &thread;
    thread.index = {linear % block.x, linear / block.x % block.y, linear / block.x / block.y};
    thread.copies.clear();
    thread.groups.clear();
    thread.passed = 0;
    thread.where = {};
    thread.state = State::ready;
    thread.stack = s.stacks[i];
    thread.asan_fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(thread.stack, kStackBytes);  // frames of a block that got stuck
#endif
    // Stacks are pages apart; without a shift the same variable of all would share a cache set.
    const size_t shift = (linear % 61) * 320;
    thread.context = fiber::make_fcontext(thread.stack + kStackBytes - shift, kStackBytes - shift,
                                          start_of_fiber);
    s.ready.push_back(ready_entry(&thread));
  }
  if (config.schedule == Schedule::reverse) std::reverse(s.ready.begin(), s.ready.end());
}

std::vector<uint32_t> order_of_blocks(size_t count) {
  std::vector<uint32_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = uint32_t(i);
  if (config.schedule == Schedule::reverse) std::reverse(order.begin(), order.end());
  if (config.schedule == Schedule::random) {
    std::shuffle(order.begin(), order.end(), scheduler.random);
  }
  return order;
}

}  // namespace

uint64_t random_number() { return scheduler.random(); }
uint3 thread_index() { return current->index; }
int live_threads() { return scheduler.live; }
int block_threads() { return scheduler.block_threads; }
Thread* thread_at(int linear) { return &scheduler.threads[linear]; }

void make_ready(Thread* thread) {
  thread->state = State::ready;
  scheduler.ready.push_back(ready_entry(thread));
}

void wait_for_turn(Thread* thread) {
  do {
    yield();
  } while (thread->state != State::ready);
}

std::string describe(const Thread* thread) {
  return "block (" + std::to_string(block_index.x) + "," + std::to_string(block_index.y) + "," +
         std::to_string(block_index.z) + ") thread " + std::to_string(thread->linear);
}

cudaError_t run_grid(const cudaLaunchConfig_t& launch, const std::function<void()>& body,
                     const void* kernel) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const dim3 grid = launch.gridDim, block = launch.blockDim;
  Scheduler& s = scheduler;
  s.block_threads = int(block.x * block.y * block.z);
  s.body = &body;
  s.random.seed(config.seed);
  s.threads.resize(s.block_threads);
  s.warps.resize((s.block_threads + 31) / 32);
  allocate_stacks(s.block_threads);
  ::blockDim = block;
  ::gridDim = grid;
  race_start_launch(s.block_threads);
  launch_counters.launches = 1;
  for (const uint32_t number : order_of_blocks(size_t{grid.x} * grid.y * grid.z)) {
    block_index = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
    race_start_block(number);
    reset_shared(launch.dynamicSmemBytes, kernel_at(kernel));
    start_threads(block);
    switch_to(nullptr, take_ready());
    launch_counters.blocks += 1;
    launch_counters.threads += uint64_t(s.block_threads);
    count_end_of_block();
    if (s.stuck) break;
  }
  shared_base = nullptr;
  count_end_of_launch(kernel);
  return s.stuck ? cudaErrorLaunchFailure : cudaSuccess;
}

}  // namespace simt
