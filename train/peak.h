// What the machine can do: the denominator of MFU.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// Best rate of a large square matrix product in `compute`, in GFLOP/s, over about a quarter of a
// second.
double measure_gemm_gflops(Exec& exec, DType compute);

}  // namespace rodimus
