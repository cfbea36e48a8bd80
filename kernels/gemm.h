// Matrix product, the one op that is left to libraries: oneDNN on CPUs, cuBLASLt on GPUs.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// c = op(a) op(b) + beta c. Row-major; op(a) is m x k, op(b) is k x n, c is m x n; transpose_a
// means that a is stored k x m, transpose_b that b is stored n x k (a Linear weight). Leading
// dimensions count elements; 0 means packed.
struct GemmDims {
  int64_t m, n, k;
  bool transpose_a = false, transpose_b = false;
  int64_t lda = 0, ldb = 0, ldc = 0;
};

// Accumulates in f32 whatever the types; c is rounded once. beta is 0 or 1, and 1 only with Out =
// float. (With a bf16 c, cuBLASLt would round once, the f32 sum of c and the product; the CPU path
// for processors without bf16 products has no such sum.) Instantiated for <float, float>, <bf16,
// float>, <bf16, bf16>. If cpu_multiplies_bf16() is false, <bf16, *> widens to f32 first, which
// gives the same result up to summation order and is noted once on stderr. m, n or k of 0 is
// allowed (k = 0 gives beta c). c must not overlap a or b.
template <class In, class Out>
void gemm(Cpu&, GemmDims dims, Out* c, const In* a, const In* b, float beta);
template <class In, class Out>
void gemm(Cuda&, GemmDims dims, Out* c, const In* a, const In* b, float beta);

// On the CPU: copies of operands that must be widened, or whose strides are slow in oneDNN. The
// GPU's workspace is allocated at start-up (Cuda::workspace).
ScratchBytes gemm_scratch(const Cpu&, DType in, DType out, GemmDims dims);
ScratchBytes gemm_scratch(const Cuda&, DType in, DType out, GemmDims dims);

// Whether this CPU has bf16 product instructions (AVX512_BF16) and oneDNN may use them
// (ONEDNN_MAX_CPU_ISA can forbid it). AVX-512 alone is not enough: oneDNN would emulate the
// product, more slowly than widening it.
bool cpu_multiplies_bf16();

// dims with leading dimensions of 0 filled in. Throws Error for what no backend computes: negative
// sizes, rows longer than their leading dimension, beta other than 0 or 1.
GemmDims checked_gemm_dims(GemmDims dims, float beta, DType out);

}  // namespace rodimus
