// How many threads a rank uses and on which cores.
#pragma once

#include <string>

#include "dist/communicator.h"
#include "kernels/exec.h"

namespace rodimus {

// threads 0: an equal share, among the ranks of this machine, of the cores that the launcher itself
// may use. Open MPI binds every rank to one core unless told otherwise (for one or two ranks); a
// rank that it bound so widens its own mask to its share. Masks that somebody chose (--bind-to,
// srun --cpu-bind, taskset) are kept. Also sets OpenMP's number of threads. Throws Error for
// threads < 0 or above 4096.
Cpu place_threads(int threads, const Communicator& communicator);

// Throws Error unless `compute` is "f32", "bf16" or "auto". auto: bf16 where the CPU multiplies it
// in hardware (AVX512_BF16), f32 elsewhere.
DType resolve_compute(const std::string& compute);

// Throws Error unless `device` is one that this build computes on: "auto" or "cpu".
void require_device(const std::string& device);

// Whether the CPU multiplies bf16 in hardware (AVX512_BF16).
bool has_native_bf16();

// "f32", and why: "f32 (auto: this CPU has no AVX512_BF16)". `compute` as in resolve_compute().
std::string describe_compute(const std::string& compute);

}  // namespace rodimus
