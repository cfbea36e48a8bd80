// Finding and opening the GPU. A process uses one: each rank of a machine takes that of its number.
#pragma once

#include <string>

#include "kernels/exec.h"

namespace rodimus {

// GPUs that this process can see. `reason` says in one clause why there is none: a build without
// the CUDA backend, no driver, no device, a device that is too old.
struct Gpus {
  int count = 0;
  std::string reason;
};
Gpus find_gpus();

// Makes stream and handles of GPU `index` on the first call; later calls return the same. Throws
// Error when there is no such GPU, or when another one is open.
Cuda open_gpu(int index);

// Returns when all work that was queued is done. Throws Error when it failed, or when a kernel met
// bad input (memory::download()).
inline void wait(Cpu&) {}
void wait(Cuda&);

}  // namespace rodimus
