// How many threads a rank uses and on which cores.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// threads 0: the cores of this machine that the job may use, shared equally among the ranks on it.
// Launchers bind a rank to one core unless told otherwise (Open MPI does for one or two ranks), so
// under a launcher a rank widens its own mask to its share; the limits of a container or batch
// system stay in force. Without a launcher the given mask is kept. Also applies to OpenMP. Throws
// Error for threads < 0 or above 4096.
Cpu place_threads(int threads);

// Throws Error unless `compute` is "f32", "bf16" or "auto". auto: bf16 where the CPU multiplies it
// in hardware (AVX512_BF16), f32 elsewhere.
DType resolve_compute(const std::string& compute);

}  // namespace rodimus
