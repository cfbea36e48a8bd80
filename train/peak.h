// What the machine can do: the denominators of MFU and of bandwidth utilisation.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// Best rate of a large square matrix product in `compute`, in GFLOP/s, over about a quarter of a
// second. For bf16 on CPUs without AVX512_BF16 it is the f32 rate, without the widening.
double measure_gemm_gflops(Exec& exec, DType compute);

// Best rate of a = b + factor * c on three f32 arrays of `array_bytes` each, in GB/s; counts 12
// bytes per element, as STREAM does (without the lines of `a` that a CPU fetches before writing
// them).
double measure_triad_gb_per_s(Exec& exec, int64_t array_bytes);

}  // namespace rodimus
