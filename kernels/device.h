// Finds and opens the GPU. A process uses one GPU.
#pragma once

#include <string>

#include "kernels/exec.h"

namespace rodimus {

// GPUs that this process can see. When there are none, `reason` says why in one clause: a build
// without the CUDA backend, no driver, no device, a device that is too old.
struct Gpus {
  int count = 0;
  std::string reason;
};
Gpus find_gpus();

// Creates the stream and handles of GPU `index` on the first call; later calls return the same
// ones. Throws Error when there is no such GPU, or when another one is open.
Cuda open_gpu(int index);

// Waits for all queued work. Throws Error when it failed, or when a kernel met bad input (see
// memory::download()).
inline void wait(Cpu&) {}
void wait(Cuda&);

}  // namespace rodimus
