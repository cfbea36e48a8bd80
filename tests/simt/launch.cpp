// Launches as a GPU takes them: the limits, how a kernel opts in to more shared memory, and the
// record of what was launched.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <tuple>

#include "tests/simt/engine.h"

namespace simt {
namespace {

constexpr Gpu kGpus[] = {
    {"sm_80", 8, 0, 164 << 10, 163 << 10},
    {"sm_86", 8, 6, 100 << 10, 99 << 10},
    {"sm_90", 9, 0, 228 << 10, 227 << 10},
    {"sm_100", 10, 0, 228 << 10, 227 << 10},
};
constexpr size_t kSharedWithoutOptIn = 48 << 10;  // static and dynamic together

const Gpu& named(const std::string& name) {
  for (const Gpu& one : kGpus) {
    if (name == one.name) return one;
  }
  std::fprintf(stderr,
               "the emulated GPU (RODIMUS_FAKE_GPU, simt::set_gpu) is '%s', expected one of",
               name.c_str());
  for (const Gpu& one : kGpus) std::fprintf(stderr, " %s", one.name);
  std::fprintf(stderr, "\n");
  std::abort();
}

const Gpu*& current_gpu() {
  static const Gpu* gpu = [] {
    const char* const wanted = std::getenv("RODIMUS_FAKE_GPU");
    return &named(wanted ? wanted : "sm_80");
  }();
  return gpu;
}

std::mutex mutex;                        // of what follows
std::map<const void*, size_t> opted_in;  // dynamic bytes, by kernel
auto as_tuple(const Launch& one) {
  return std::tie(one.kernel, one.file, one.grid.x, one.grid.y, one.grid.z, one.block.x,
                  one.block.y, one.block.z, one.static_shared, one.dynamic_shared);
}
struct Before {
  bool operator()(const Launch& a, const Launch& b) const { return as_tuple(a) < as_tuple(b); }
};
std::set<Launch, Before> recorded;

// What a launch may ask for: as opted in, or what static arrays leave of the default.
size_t dynamic_limit(const void* kernel, size_t static_bytes) {
  const auto asked = opted_in.find(kernel);
  if (asked != opted_in.end()) return asked->second;
  return kSharedWithoutOptIn - std::min(kSharedWithoutOptIn, static_bytes);
}

bool shape_fits(dim3 grid, dim3 block) {
  return grid.x > 0 && grid.y > 0 && grid.z > 0 && block.x > 0 && block.y > 0 && block.z > 0 &&
         grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535 && block.z <= 64 &&
         uint64_t{block.x} * block.y * block.z <= 1024;
}

}  // namespace

const Gpu& gpu() { return *current_gpu(); }
void set_gpu(const std::string& name) {
  const std::lock_guard lock(mutex);
  current_gpu() = &named(name);
  opted_in.clear();  // another device: nobody has asked there
}

cudaError_t admit_launch(const cudaLaunchConfig_t& launch, const void* address) {
  const Kernel& kernel = kernel_at(address);
  const dim3 grid = launch.gridDim, block = launch.blockDim;
  const std::lock_guard lock(mutex);
  const size_t limit = dynamic_limit(address, kernel.static_bytes);
  cudaError_t error = cudaSuccess;
  if (launch.dynamicSmemBytes > limit || kernel.static_bytes > kSharedWithoutOptIn)
    error = cudaErrorInvalidValue;
  if (!shape_fits(grid, block)) error = cudaErrorInvalidConfiguration;
  if (error == cudaSuccess) {
    recorded.insert(
        {kernel.symbol, kernel.file, grid, block, kernel.static_bytes, launch.dynamicSmemBytes});
    return cudaSuccess;
  }
  char text[400];
  std::snprintf(
      text, sizeof text,
      "%.150s: grid (%u,%u,%u), block (%u,%u,%u), shared memory %zu static (at most %zu), "
      "%zu dynamic (at most %zu): beyond what a GPU takes",
      kernel.symbol.c_str(), grid.x, grid.y, grid.z, block.x, block.y, block.z, kernel.static_bytes,
      kSharedWithoutOptIn, launch.dynamicSmemBytes, limit);
  report("launch", text, text);
  return error;
}

std::vector<Launch> launches() {
  const std::lock_guard lock(mutex);
  return {recorded.begin(), recorded.end()};
}

void clear_launches() {
  const std::lock_guard lock(mutex);
  recorded.clear();
}

}  // namespace simt

// The part of the CUDA runtime that dev::launch calls.
extern "C" cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute,
                                            int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
    std::fprintf(stderr, "the emulator does not know cudaFuncSetAttribute %d\n", int(attribute));
    std::abort();
  }
  const size_t static_bytes = simt::kernel_at(kernel).static_bytes;
  const std::lock_guard lock(simt::mutex);
  if (value < 0 || static_bytes + size_t(value) > simt::gpu().shared_per_block)
    return cudaErrorInvalidValue;
  simt::opted_in[kernel] = size_t(value);
  return cudaSuccess;
}
