// Where work runs. The type selects the backend by plain overloading: no registry, no virtual call.
// A backend that a build lacks is an absent overload, that is a link error with the op's name.
#pragma once

#include <utility>
#include <variant>

#include "kernels/check.h"
#include "kernels/dtype.h"

namespace rodimus {

struct Cpu {
  int threads = 1;  // OpenMP threads of every parallel region; results do not depend on it except
                    // through GEMM
};

enum class Device : uint8_t { cpu, cuda };

using Exec = std::variant<Cpu>;  // the CUDA build adds Cuda

inline Device device_of(const Exec&) { return Device::cpu; }

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
