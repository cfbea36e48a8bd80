// Gather and its transpose, row by row. Tests only.
#pragma once

#include <cstdint>

namespace rodimus::reference {

template <class R>
void embedding(R* y, const R* table, const int32_t* ids, int64_t rows, int64_t dim) {
  for (int64_t i = 0; i < rows * dim; ++i) y[i] = table[ids[i / dim] * dim + i % dim];
}

template <class R>
void embedding_backward(R* dtable, const R* dy, const int32_t* ids, int64_t rows, int64_t dim) {
  for (int64_t i = 0; i < rows * dim; ++i) dtable[ids[i / dim] * dim + i % dim] += dy[i];
}

}  // namespace rodimus::reference
