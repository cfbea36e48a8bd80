// Token embedding: a gather and its deterministic scatter-add.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// y[r,:] = table[ids[r],:].   y (rows, dim) f32, table (vocab, dim) f32, ids (rows) int32.
// Throws Error naming the first id outside [0, vocab).
void embedding_forward(Cpu&, float* y, const float* table, const int32_t* ids, int64_t rows,
                       int64_t dim, int64_t vocab);
void embedding_forward(Cuda&, float* y, const float* table, const int32_t* ids, int64_t rows,
                       int64_t dim, int64_t vocab);

// dtable[ids[r],:] += dy[r,:], in ascending r for every table row: no atomics, and the same bits on
// any number of threads.
void embedding_backward(Cpu&, float* dtable, const float* dy, const int32_t* ids, int64_t rows,
                        int64_t dim, int64_t vocab);
void embedding_backward(Cuda&, float* dtable, const float* dy, const int32_t* ids, int64_t rows,
                        int64_t dim, int64_t vocab);

// Scratch of backward; forward takes none.
ScratchBytes embedding_scratch(const Cpu&, int64_t rows, int64_t dim, int64_t vocab);
ScratchBytes embedding_scratch(const Cuda&, int64_t rows, int64_t dim, int64_t vocab);

}  // namespace rodimus
