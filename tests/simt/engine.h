// Inside of the emulator: threads as fibers, warps, and the hooks that connect scheduling, memory
// checks and counting. Kernels reach it through device.h and ptx.cuh, tests through emulator.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <source_location>
#include <string>
#include <vector>

#include "tests/simt/emulator.h"

namespace simt {

using Where = std::source_location;  // a call in a kernel source

inline constexpr size_t kSharedArena = 320 << 10;  // dynamic, static arrays, gaps
inline constexpr size_t kStackBytes = 128 << 10;
inline constexpr int kBarriers = 16;
inline constexpr unsigned kWholeWarp = 0xffffffffu;

struct Warp;
enum class State : uint8_t { ready, at_barrier, in_collective, done };
enum class Op : uint8_t { syncwarp, shuffle, vote, reduce, match, mma, ldmatrix };

struct AsyncCopy {
  uint32_t to;                 // shared offset
  const void* from;            // device memory
  uint32_t bytes, from_bytes;  // the rest is zero-filled
  bool landed;
  Where where;
};

struct Thread {
  uint3 index;
  unsigned linear, lane;
  State state;
  int barrier;  // it waits at
  int passed;   // barriers of the whole block so far
  Where where;  // of the collective or barrier that it waits at or met last
  Warp* warp;
  alignas(16) unsigned char in[64], out[64];  // what it brings to and takes from a collective
  std::vector<AsyncCopy> copies;              // oldest first; the committed ones in groups
  std::vector<unsigned> groups;
  void* context;
  char* stack;
  void* asan_fake_stack;
};

struct PendingCollective {
  unsigned mask, arrived;
  Op op;
  Where where;
};
struct Warp {
  Thread* lanes[32];
  std::vector<PendingCollective> pending;
};

// scheduler.cpp
extern constinit thread_local Thread* current;  // null outside of kernels
extern uint3 block_index;
extern unsigned char* shared_base;  // null outside of launches
uint64_t random_number();
void make_ready(Thread* thread);
void wait_for_turn(Thread* thread);  // the calling thread runs again after make_ready()
int live_threads();
uint3 thread_index() __attribute__((const));  // of the running thread, which never changes for it
Thread* thread_at(int linear);
int block_threads();
std::string describe(const Thread* thread);  // "block (1,0) thread 5"
cudaError_t run_grid(const cudaLaunchConfig_t& launch, const std::function<void()>& body,
                     const void* kernel);
void reset_barriers();

// symbols.cpp: what the symbol table of this program says of a kernel.
struct SharedArray {  // a constant for each SHARED_ARRAY
  size_t bytes, alignment;
};
struct Kernel {
  std::string symbol;                      // mangled
  std::string file;                        // source, where the kernel is local to it
  std::vector<const SharedArray*> arrays;  // the kernel's own
  size_t static_bytes = 0;                 // of all arrays
};
const Kernel& kernel_at(const void* address);

// launch.cpp: an error as of the CUDA runtime for what gpu() does not take, with a report; else the
// launch becomes one of launches().
cudaError_t admit_launch(const cudaLaunchConfig_t& launch, const void* kernel);

// warp_ops.cpp and tensor_ops.cpp: what device.h and ptx.cuh stand on
enum class Shuffle : uint8_t { index, up, down, butterfly };
uint32_t shuffle(unsigned mask, uint32_t value, Shuffle kind, int operand, int width, Where where);
unsigned ballot(unsigned mask, bool vote, Where where);
// A warp-wide reduction of integers, or the lanes that hold the same value.
enum class Reduction : uint8_t { add, min, max, bit_and, bit_or, bit_xor };
uint32_t reduce(unsigned mask, uint32_t value, Reduction kind, bool is_signed, Where where);
uint32_t match_any(unsigned mask, uint64_t value, Where where);
void mma_bf16(float* d, const uint32_t* a, const uint32_t* b, Where where);
void mma_tf32(float* d, const uint32_t* a, const uint32_t* b, Where where);
void ldmatrix(uint32_t* registers, int matrices, bool transposed, uint32_t offset, Where where);
void cp_async(uint32_t to, const void* from, uint32_t bytes, uint32_t from_bytes, Where where);
void cp_commit();
void cp_wait(unsigned groups_left);
uint32_t to_tf32(float x);
float flushed(float x);  // .ftz: a subnormal becomes zero
// Vector accesses, checked for alignment in every build. `to` of a load and `from` of a store are
// the caller's own variables.
void load_bytes(void* to, const void* from, size_t bytes, Where where);
void store_bytes(void* to, const void* from, size_t bytes, Where where);

// tensor_sums.cpp: c += a b as config.tensor_core sums; K = 16 products of bf16, or 8 of tf32.
template <int K>
void add_products(float (&c)[16][8], const float (&a)[16][K], const float (&b)[K][8]);

// collective.cpp
const char* name_of(Op op);
// Threads -1: all that have not exited. Returns how many of them voted yes.
int barrier(int id, int threads, bool vote, Where where);
void thread_exits(Thread* thread);
// Meets the other lanes of `mask`; the last to arrive calls complete for all.
using Complete = void (*)(Warp& warp, unsigned mask, const void* argument);
void collective(unsigned mask, Op op, Complete complete, const void* argument, Where where);

// shared.cpp
void reset_shared(size_t dynamic_bytes, const Kernel& kernel);
unsigned char* dynamic_shared();
void* static_shared(const SharedArray* array);
uint32_t shared_offset(const void* pointer, Where where);
void* shared_at(uint32_t offset, size_t bytes, const char* what, Where where);  // null when outside

// report.cpp. `key` tells places apart: one report for each kind and key.
void report(const char* kind, const std::string& key, const std::string& message);
std::string line_of(const Where& where);
std::string line_of_code(const void* code_address);      // file:line
std::string function_of_code(const void* code_address);  // demangled name

// access.cpp: every load and store of the kernel comes by here.
struct Site {  // where an access stands: an address in the code or, for a wrapper, its call
  const void* code = nullptr;
  const Where* where = nullptr;
  bool any_alignment = false;  // the compiler splits it as its alignment demands
  std::string line() const;
};
enum class Access : uint8_t { load, store };
void on_access(const volatile void* pointer, size_t bytes, Access access, const Site& site,
               bool atomic = false);
void check_access(const volatile void* pointer, size_t bytes, Access access, const Site& site,
                  bool atomic = false);  // the same without counting
// Variables of the running thread, most of what a kernel touches: nothing to check or count.
inline bool on_own_stack(const volatile void* pointer) {
  return current &&
         reinterpret_cast<uintptr_t>(pointer) - reinterpret_cast<uintptr_t>(current->stack) <
             kStackBytes;
}
inline bool in_shared(const volatile void* pointer) {
  return shared_base &&
         reinterpret_cast<uintptr_t>(pointer) - reinterpret_cast<uintptr_t>(shared_base) <
             kSharedArena;
}

// memory.cpp
bool host_allowed(const volatile void* pointer);

// race.cpp: happens-before by vector clocks.
struct Stamp {  // one access to a word
  uint32_t block, clock;
  uint16_t thread;
  uint8_t bytes, atomic;  // mask of bytes; 0: no access
};
struct Cell {      // last write of a word and some reads
  uint32_t epoch;  // the launch, for shared memory the block: what was there before it is forgotten
  Stamp write, reads[3];
};
// Memory that kernels use, and behind it what device_reserve() gives.
inline constexpr size_t kUsableArena = size_t{64} << 30, kDeviceArena = size_t{256} << 30;
struct DeviceMemory {               // memory.cpp
  uintptr_t begin = ~kDeviceArena;  // nothing lies there before the first allocation
  // For each word: its low half says which bytes exist, its high half which were written.
  uint8_t* states = nullptr;
  Cell* cells = nullptr;
  size_t word(uintptr_t address) const { return (address - begin) / 4; }
};
extern DeviceMemory device;
inline bool in_device_memory(const volatile void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) - device.begin < kDeviceArena;
}
void race_start_launch(int threads);
void race_start_block(uint32_t block);
void race_arrive(int barrier);
void race_release_all(int barrier);
void race_leave(int barrier);
void race_syncwarp(const Warp& warp, unsigned mask);
void race_check(Cell& cell, uint8_t bytes, Access access, bool atomic, bool global,
                const Site& site);
void shared_exists(size_t offset, size_t bytes);  // offset 0: of a new block
void shared_unwritten(size_t offset, size_t bytes);

// count.cpp
extern Counters launch_counters;
void count_access(const volatile void* pointer, size_t bytes, Access access, const Site& site);
void count_end_of_block();
void count_end_of_launch(const void* kernel);

// Checks are on: a race build that was not told otherwise.
inline bool checking() { return is_race_build() && config.check_races; }

// f(address of word, mask of its bytes) for each 4-byte word that [pointer, pointer + bytes)
// touches.
template <class F>
void for_each_word(const volatile void* pointer, size_t bytes, F f) {
  const auto begin = reinterpret_cast<uintptr_t>(pointer), end = begin + bytes;
  for (uintptr_t word = begin & ~uintptr_t{3}; word < end; word += 4) {
    const unsigned first = word < begin ? unsigned(begin - word) : 0;
    const unsigned last = word + 4 > end ? unsigned(end - word) : 4;
    f(word, uint8_t((1u << last) - (1u << first)));
  }
}

}  // namespace simt
