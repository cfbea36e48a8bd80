// Reads b row by row: with rows of 256 to 1536 floats, a single stream gets 25 to 34 GB/s on one
// Zen 4 core; four rows side by side, or oneDNN's matmul, get 10 (short rows) to 20, because the
// hardware prefetches only one stream per page well. Rows of a stay in L1.
#include "kernels/cpu/gemm_few_rows.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace rodimus::cpu {
namespace {

using simd::kLanes;
using simd::Vec;

// sums[i] = a_i . b for M rows of a. Each uses several partial sums, to hide the latency of an FMA.
template <int M, class In>
void dot_products(float (&sums)[M], const In* a, int64_t lda, const In* b, int64_t k) {
  constexpr int kSums = M == 1 ? 4 : 2;
  Vec total[M][kSums] = {};
  int64_t j = 0;
  for (; j + kSums * kLanes <= k; j += kSums * kLanes) {
#pragma GCC unroll 4
    for (int u = 0; u < kSums; ++u) {
      const Vec right = simd::load(b + j + u * kLanes);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) total[i][u] += simd::load(a + i * lda + j + u * kLanes) * right;
    }
  }
  simd::for_lanes(k - j, [&](int64_t rest, auto lanes) {
    const Vec right = simd::load(b + j + rest, lanes);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) total[i][0] += simd::load(a + i * lda + j + rest, lanes) * right;
  });
  for (int i = 0; i < M; ++i) {
    for (int u = 1; u < kSums; ++u) total[i][0] += total[i][u];
    sums[i] = simd::reduce_add(total[i][0]);
  }
}

template <int M, class In, class Out>
void columns(Out* c, const In* a, const In* b, const GemmDims& d, int64_t begin, int64_t end,
             float beta) {
  for (int64_t n = begin; n < end; ++n) {
    float sums[M];
    dot_products<M>(sums, a, d.lda, b + n * d.ldb, d.k);
    for (int i = 0; i < M; ++i) {
      Out& out = c[i * d.ldc + n];
      out = Out(beta == 0 ? sums[i] : sums[i] + beta * to_f32(out));
    }
  }
}

}  // namespace

template <class In, class Out>
void gemm_few_rows(const Cpu& exec, const GemmDims& d, Out* c, const In* a, const In* b,
                   float beta) {
  parallel_rows(exec, d.n, d.k, [&](int64_t begin, int64_t end) {
    switch (d.m) {
      case 1:
        return columns<1>(c, a, b, d, begin, end, beta);
      case 2:
        return columns<2>(c, a, b, d, begin, end, beta);
      case 3:
        return columns<3>(c, a, b, d, begin, end, beta);
      default:
        return columns<4>(c, a, b, d, begin, end, beta);
    }
  });
}

template void gemm_few_rows(const Cpu&, const GemmDims&, float*, const float*, const float*, float);
template void gemm_few_rows(const Cpu&, const GemmDims&, float*, const bf16*, const bf16*, float);
template void gemm_few_rows(const Cpu&, const GemmDims&, bf16*, const bf16*, const bf16*, float);

}  // namespace rodimus::cpu
