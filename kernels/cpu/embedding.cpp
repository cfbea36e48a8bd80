// Embedding lookup and its gradient. Backward gives each thread a range of columns: every table row
// receives its contributions in ascending order of rows, without atomics or a sort.
#include "kernels/embedding.h"

#include <algorithm>

#include "kernels/bad_input.h"
#include "kernels/cpu/parallel.h"

namespace rodimus {

using namespace cpu;
namespace {

// Runs before the parallel region, which an exception must not leave.
void check_ids(const int32_t* ids, int64_t rows, int64_t vocab) {
  for (int64_t r = 0; r < rows; ++r)
    if (ids[r] < 0 || ids[r] >= vocab) fail_token_id(ids[r], r, vocab);
}

}  // namespace

void embedding_forward(Cpu& exec, float* y, const float* table, const int32_t* ids, int64_t rows,
                       int64_t dim, int64_t vocab) {
  check_ids(ids, rows, vocab);
  parallel_rows(exec, rows, dim, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::copy_n(table + ids[r] * dim, dim, y + r * dim);
  });
}

void embedding_backward(Cpu& exec, float* dtable, const float* dy, const int32_t* ids, int64_t rows,
                        int64_t dim, int64_t vocab) {
  check_ids(ids, rows, vocab);
  parallel_rows(exec, dim, rows, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r) {
      float* sum = dtable + ids[r] * dim;
      const float* d = dy + r * dim;
#pragma omp simd
      for (int64_t j = begin; j < end; ++j) sum[j] += d[j];
    }
  });
}

ScratchBytes embedding_scratch(const Cpu&, int64_t, int64_t, int64_t) { return {}; }

}  // namespace rodimus
