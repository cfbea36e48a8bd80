// How a kernel reports bad input: see faults.h.
#pragma once

#include "kernels/cuda/dev.cuh"
#include "kernels/cuda/faults.h"

namespace rodimus::cuda {

// `faults` is Cuda::faults. Of many reports the smallest position stays, whatever the order.
__device__ __forceinline__ void report(uint64_t* faults, Fault fault, int64_t position,
                                       int32_t value, int64_t limit) {
  // atomicMin knows this type and not uint64_t, which is another one of the same size.
  auto* words = reinterpret_cast<unsigned long long*>(faults) +
                static_cast<int>(fault) * (sizeof(FaultWords) / sizeof(uint64_t));
  atomicMin(words, static_cast<unsigned long long>(position) << 32 | static_cast<uint32_t>(value));
  atomicMin(words + 1, static_cast<unsigned long long>(limit));
}

}  // namespace rodimus::cuda
