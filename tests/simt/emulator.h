// The SIMT emulator, as tests see it: how the next launches are scheduled, what was found wrong,
// what was counted, and device memory. README.md says what it proves and what it does not.
//
// A kernel source (.cu) is compiled a second time as C++. Each CUDA thread becomes a fiber, a block
// runs on one OS thread, blocks run one after the other. In the race build (the kernel sources
// alone are compiled with -fsanitize=thread, whose calls end up here) every load and store is
// checked.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace simt {

// Which runnable thread goes next. Greedy lets one warp run as far ahead of the others as it can:
// the only order that shows a write which overtakes slower readers.
enum class Schedule { forward, reverse, random, greedy };
// When the bytes of an asynchronous copy arrive: at the wait for it, at once, or either.
enum class Landing { late, early, random };
// Whose tensor cores: sums are cut, not rounded, to 25 fraction bits (H100, B200), or to 24 and in
// two halves (A100). See tensor_sums.cpp.
enum class TensorCore { a100, h100 };

struct Config {
  Schedule schedule = Schedule::forward;
  Landing landing = Landing::late;
  uint64_t seed = 1;  // of the random and greedy schedules
  TensorCore tensor_core = TensorCore::h100;
  bool check_races = true;   // has an effect in the race build only
  bool count = false;        // fill counters(); complete in the race build only
  bool launch_only = false;  // kernels and products are checked and recorded, and do nothing
  int max_reports = 8;       // of each kind: a flood of one must not hide another
};
extern Config config;

// Whether kernels of this program were compiled for the race build.
bool is_race_build();

struct Report {
  std::string kind;     // "race", "uninit", "shared-oob", "divergent-barrier", ...
  std::string message;  // one line with block, thread and source lines
};
const std::vector<Report>& reports();  // everything found since clear_reports()
void clear_reports();
std::string report_text();  // all reports, one a line; empty when there are none

// ---- Counts ------------------------------------------------------------------------------------

struct Counters {
  uint64_t launches = 0, blocks = 0, threads = 0, barriers = 0, collectives = 0;
  uint64_t mma = 0;       // warp-level products
  uint64_t ldmatrix = 0;  // warp-level loads
  // Device memory: bytes that lanes asked for; warp-level requests; 32-byte sectors that these
  // touch, and the fewest that could hold the distinct bytes of each request.
  uint64_t load_bytes = 0, store_bytes = 0, global_requests = 0, sectors = 0, ideal_sectors = 0;
  // Distinct sectors of a launch times 32, summed over launches: what a perfect cache would move.
  uint64_t unique_load_bytes = 0, unique_store_bytes = 0;
  // Shared memory: bytes that lanes asked for, passes that the 32 banks need, and the fewest.
  uint64_t shared_load_bytes = 0, shared_store_bytes = 0, wavefronts = 0, ideal_wavefronts = 0;

  double sector_efficiency() const { return sectors ? double(ideal_sectors) / double(sectors) : 1; }
  double shared_efficiency() const {
    return wavefronts ? double(ideal_wavefronts) / double(wavefronts) : 1;
  }
};
struct SiteCount {    // one access in the source
  std::string where;  // file:line
  bool store, shared;
  uint64_t requests, bytes, units, ideal;  // units: sectors, or wavefronts of shared memory
};
Counters counters();                                              // of all launches since the reset
std::vector<std::pair<std::string, Counters>> kernel_counters();  // by name of the kernel
std::vector<SiteCount> site_counters();                           // costliest first
std::string counter_text();                                       // a table of both
void reset_counters();

// ---- Device memory -----------------------------------------------------------------------------

// Fresh memory reads as NaN and counts as never written; a gap that nobody may touch follows it.
void* device_malloc(size_t bytes);
void device_free(void* pointer);
bool is_device(const void* pointer);                     // inside the device's address range
bool in_allocation(const void* pointer, size_t bytes);   // wholly inside one live allocation
void mark_written(const void* pointer, size_t bytes);    // after a copy or memset by the host
void mark_unwritten(const void* pointer, size_t bytes);  // its content must not be read
void allow_host(const void* pointer, size_t bytes);      // pinned memory: kernels may touch it
void forbid_host(const void* pointer);                   // undoes allow_host

// Address space alone, for the launch-only mode: nobody may touch it, a copy out of it gives zeros.
// device_free gives it back.
void* device_reserve(size_t bytes);
bool is_reserved(const void* pointer);

// ---- Launches ----------------------------------------------------------------------------------

// Limits of a GPU ("Compute Capabilities" in the CUDA programming guide). Each block's share of a
// multiprocessor is one KiB more than its own shared memory.
struct Gpu {
  const char* name;
  int major, minor;
  size_t shared_per_sm, shared_per_block;  // the latter for kernels that opt in
};
// The GPU whose limits hold: that of the last set_gpu, of RODIMUS_FAKE_GPU in the environment, or
// else sm_80, the strictest that we support.
const Gpu& gpu();
void set_gpu(const std::string& name);  // sm_80, sm_86, sm_90 or sm_100

// A launch that was admitted, whether or not the kernel ran.
struct Launch {
  std::string kernel;  // mangled
  std::string file;    // of the source, when the kernel is local to it
  dim3 grid, block;
  size_t static_shared, dynamic_shared;
};
std::vector<Launch> launches();  // since clear_launches(), each kind once
void clear_launches();

// Takes launches instead of running them at once: (stream, what to run) -> what dev::launch
// returns.
using EnqueueHook = std::function<cudaError_t(cudaStream_t, std::function<void()>)>;
extern EnqueueHook enqueue_hook;

}  // namespace simt
