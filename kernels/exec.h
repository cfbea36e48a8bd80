// Where work runs. The type selects the backend by plain overloading: no registry, no virtual call.
// A backend that a build lacks is a missing overload, which gives a link error with the op's name.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "kernels/dtype.h"

struct CUstream_st;      // *cudaStream_t
struct cublasLtContext;  // *cublasLtHandle_t

namespace rodimus {

struct Cpu {
  int threads = 1;  // OpenMP threads of every parallel region; results do not depend on it except
                    // through GEMM
};

// One GPU: the handles made by open_gpu() in kernels/device.h, which live as long as the process.
// Work is queued on the stream in call order and may not have run when a kernel function returns;
// the host waits with memory::download() or wait().
struct Cuda {
  int device = 0;
  CUstream_st* stream = nullptr;
  cublasLtContext* blaslt = nullptr;
  std::byte* workspace = nullptr;  // for matrix products
  size_t workspace_bytes = 0;
  int sm_count = 0;
  int64_t shared_bytes = 0;    // most dynamic shared memory of a block
  uint64_t* faults = nullptr;  // on the device: see kernels/cuda/faults.h
};

// A machine that is described, not used. Code that runs on it allocates, records and frees as on
// the real machine, but dispatch() and on_device() run no kernels and no memory is taken: what
// would be live is counted (kernels/dry.h). This shows what a model costs even if no machine here
// could hold it.
struct Dry {
  std::variant<Cpu, Cuda> machine;  // of a GPU only sm_count matters: no handle is used
};

enum class Device : uint8_t { cpu, cuda, dry };
inline constexpr const char* name_of(Device device) {
  return device == Device::cpu ? "cpu" : device == Device::cuda ? "cuda" : "dry";
}

// The only place that knows whether this build has the CUDA backend.
#if RODIMUS_WITH_CUDA
using Exec = std::variant<Cpu, Dry, Cuda>;
inline Exec exec_of(const Cuda& gpu) { return gpu; }
#else
using Exec = std::variant<Cpu, Dry>;
[[noreturn]] inline Exec exec_of(const Cuda&) { fail("this program was built without CUDA"); }
#endif

inline Device device_of(const Cpu&) { return Device::cpu; }
inline Device device_of(const Cuda&) { return Device::cuda; }
inline Device device_of(const Dry&) { return Device::dry; }
inline Device device_of(const Exec& exec) {
  return std::visit([](const auto& backend) { return device_of(backend); }, exec);
}

// Calls f(backend), except in a dry run: a number that f would return to the host therefore needs
// an initial value.
template <class F>
void on_device(Exec& exec, F&& f) {
  std::visit(
      [&]<class Backend>(Backend& backend) {
        if constexpr (!std::is_same_v<Backend, Dry>) f(backend);
      },
      exec);
}

// The same for kernels that are templates: f.operator()<T>(backend) with T the C++ type of `dtype`,
// dispatch(exec, dtype, [&]<class T>(auto& exec) {...}).
template <class F>
void dispatch(Exec& exec, DType dtype, F&& f) {
  on_device(exec, [&](auto& backend) {
    switch (dtype) {
      case DType::f32:
        return f.template operator()<float>(backend);
      case DType::bf16:
        return f.template operator()<bf16>(backend);
      case DType::i32:
        break;
    }
    fail("dispatch: no kernel computes in ", name_of(dtype));
  });
}

// What a kernel takes from the allocator while it runs: the bytes of each block that is live at its
// peak. Contracts state it as <kernel>_scratch(const Cpu&, ...) and (const Cuda&, ...).
using ScratchBytes = std::vector<int64_t>;
enum class Direction : uint8_t { forward, backward };

// Counts blocks that are live together briefly, in the DryMemory of this thread.
void count_scratch(const ScratchBytes& blocks);

// Call it before a kernel that takes scratch: counts scratch(machine) in a dry run, does nothing
// otherwise.
template <class F>
void count_scratch(const Exec& exec, F&& scratch) {
  if (const Dry* dry = std::get_if<Dry>(&exec)) count_scratch(std::visit(scratch, dry->machine));
}

}  // namespace rodimus
