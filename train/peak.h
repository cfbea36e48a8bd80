// What the machine can do: the denominators of MFU and of the share of bandwidth.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// Best rate of a large square matrix product in `compute`, in GFLOP/s, over about a quarter of a
// second. bf16 without instructions for it is computed in f32: that rate, without the widening.
double measure_gemm_gflops(Exec& exec, DType compute);

// Best rate of a = b + factor * c on three f32 arrays of `array_bytes` each, in GB/s; 12 bytes per
// element are counted, as STREAM does (the lines of `a` that a CPU fetches before it writes them
// are not).
double measure_triad_gb_per_s(Exec& exec, int64_t array_bytes);

}  // namespace rodimus
