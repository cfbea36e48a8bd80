// c = op(a) op(b) + beta c, the definition. Tests only.
#pragma once

#include <cstdint>

namespace rodimus::reference {

template <class R>
void gemm(int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b, int64_t lda,
          int64_t ldb, int64_t ldc, R* c, const R* a, const R* b, double beta) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      R sum = beta == 0 ? R(0) : c[i * ldc + j];
      for (int64_t l = 0; l < k; ++l)
        sum +=
            a[transpose_a ? l * lda + i : i * lda + l] * b[transpose_b ? j * ldb + l : l * ldb + j];
      c[i * ldc + j] = sum;
    }
  }
}

}  // namespace rodimus::reference
