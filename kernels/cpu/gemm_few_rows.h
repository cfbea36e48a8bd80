// Products with a handful of rows, as in generation: bound by reading b once.
#pragma once

#include "kernels/gemm.h"

namespace rodimus::cpu {

inline constexpr int64_t kFewRows = 4;

// c (m x n, ldc) = a (m x k, lda) b^T + beta c, b (n x k, ldb); leading dimensions must be given,
// and m is in [1, kFewRows]. Each element is one sum whose order depends only on k. bf16 is widened
// as it is read, so no bf16 instructions are needed.
template <class In, class Out>
void gemm_few_rows(const Cpu& exec, const GemmDims& dims, Out* c, const In* a, const In* b,
                   float beta);

}  // namespace rodimus::cpu
