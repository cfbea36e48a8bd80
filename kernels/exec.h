// Where work runs. The type selects the backend by plain overloading: no registry, no virtual call.
// A backend that a build lacks is an absent overload, that is a link error with the op's name.
#pragma once

#include <cstddef>
#include <utility>
#include <variant>

#include "base/error.h"
#include "kernels/dtype.h"

struct CUstream_st;      // *cudaStream_t
struct cublasLtContext;  // *cublasLtHandle_t

namespace rodimus {

struct Cpu {
  int threads = 1;  // OpenMP threads of every parallel region; results do not depend on it except
                    // through GEMM
};

// One GPU: handles that open_gpu() in kernels/device.h made, which live as long as the process.
// Work is queued on the stream in the order of the calls and has not happened when a kernel
// function returns; memory::download() and wait() are what the host waits with.
struct Cuda {
  int device = 0;
  CUstream_st* stream = nullptr;
  cublasLtContext* blaslt = nullptr;
  std::byte* workspace = nullptr;  // of matrix products
  size_t workspace_bytes = 0;
  int sm_count = 0;
  int64_t shared_bytes = 0;    // most dynamic shared memory of a block
  uint64_t* faults = nullptr;  // on the device: see kernels/cuda/faults.h
};

enum class Device : uint8_t { cpu, cuda };
inline constexpr const char* name_of(Device device) {
  return device == Device::cpu ? "cpu" : "cuda";
}

// The one place that knows whether this build has the CUDA backend.
#if RODIMUS_WITH_CUDA
using Exec = std::variant<Cpu, Cuda>;
inline Exec exec_of(const Cuda& gpu) { return gpu; }
#else
using Exec = std::variant<Cpu>;
[[noreturn]] inline Exec exec_of(const Cuda&) { fail("this program was built without CUDA"); }
#endif

inline Device device_of(const Cpu&) { return Device::cpu; }
inline Device device_of(const Cuda&) { return Device::cuda; }
inline Device device_of(const Exec& exec) {
  return std::visit([](const auto& backend) { return device_of(backend); }, exec);
}

// Calls f.operator()<T>(backend) with T the C++ type of `dtype`: dispatch(exec, dtype, [&]<class
// T>(auto& exec) {...}).
template <class F>
void dispatch(Exec& exec, DType dtype, F&& f) {
  std::visit(
      [&](auto& backend) {
        switch (dtype) {
          case DType::f32:
            return f.template operator()<float>(backend);
          case DType::bf16:
            return f.template operator()<bf16>(backend);
          case DType::i32:
            break;
        }
        fail("dispatch: no kernel computes in ", name_of(dtype));
      },
      exec);
}

// For kernels whose types are fixed: on_device(exec, [&](auto& exec) {...}).
template <class F>
void on_device(Exec& exec, F&& f) {
  std::visit(std::forward<F>(f), exec);
}

}  // namespace rodimus
