// dq: a block owns a tile of queries of one or more heads and walks the window, as in the forward
// pass: s = q k^T, dp = d_o v^T, ds = p (dp - delta), dq += ds k.
#include "kernels/cuda/ska/ska_backward.h"

namespace rodimus::cuda::ska {
namespace {

template <class G>
constexpr bool kInRegisters = std::is_same_v<typename G::T, bf16>&& G::kDim <= 128;
template <class G>
__global__ void __launch_bounds__(G::kThreads, 1)
    ska_dq_kernel(const BackwardArgs<typename G::T> args) {
  using T = typename G::T;
  constexpr int M = G::kHeadsPerWarp, kFragments = G::kKeys / 8;
  DYN_SHARED(shared);
  const Shape& shape = args.in.shape;
  const int x = static_cast<int>(blockIdx.x);
  const QueryRows<G> rows(args.in, ptx::smem_u32(shared), x / args.in.tiles,
                          args.in.tiles - 1 - x % args.in.tiles);
  const int begin = rows.first / G::kKeys, end = rows.last / G::kKeys + 1;

  const Tile<T, G::kDim> q_rows = rows.keys(2),
                         d_o_rows = q_rows.from(args.in.template query_rows<G>());
  rows.load_own(q_rows, args.in.q);
  rows.load_own(d_o_rows, args.d_o);
  ptx::cp_commit();
  if (begin < end) rows.load_stage(0, begin);
  ptx::cp_commit();

  float lse[M][2], delta[M][2];
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int64_t at = rows.row_at(min(rows.query(part), shape.T - 1), max(rows.head(m), 0));
      lse[m][part] = args.lse[at];
      delta[m][part] = args.delta[at];
    }
  }
  ptx::cp_wait<1>();
  __syncwarp();  // q and d_o of this warp are complete
  LeftRows<T, G::kDim, kInRegisters<G>> q[M], d_o[M][1];
#pragma unroll
  for (int m = 0; m < M; ++m) {
    q[m].load(rows.own(q_rows, m));
    d_o[m][0].load(rows.own(d_o_rows, m));
  }

  const RowMask mask(rows);
  const Slope slope{args.scale * kLog2e};
  float dq[M][G::kDim / 8][4];
  clear(dq);
  for (int tile = begin; tile < end; ++tile) {
    const int stage = (tile - begin) & 1, key0 = tile * G::kKeys;
    ptx::cp_wait<0>();
    __syncthreads();  // the tile is complete, and nobody reads the other stage any more
    if (tile + 1 < end) rows.load_stage(stage ^ 1, tile + 1);
    ptx::cp_commit();
    if (mask.none(key0, G::kKeys)) continue;
    const bool all = mask.all(key0, G::kKeys);
    float s[M][kFragments][4];
    multiply_transposed(s, q, rows.keys(stage));
#pragma unroll
    for (int m = 0; m < M; ++m) {
      float ds[1][kFragments][4];
      multiply_transposed(ds, d_o[m], rows.values(stage, m));
#pragma unroll
      for (int n = 0; n < kFragments; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e)
          slope.apply(s[m][n][e], ds[0][n][e], lse[m][e >> 1], delta[m][e >> 1],
                      all || mask.sees(key0, n, e));
      }
      multiply_add(dq[m], ds[0], rows.keys(stage), 0);
    }
  }

#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int h = rows.head(m);
    store_fragments(rows.own(q_rows, 0), dq[m], {args.scale, args.scale}, 0, shape,
                    [&](int row) -> T* {
                      const int i = rows.warp_query + row;
                      return h >= 0 && i < shape.T ? args.dq + rows.at(i, h) : nullptr;
                    });
  }
}

// Registers: Dim / 2 a head for dq, and Dim / 4 each for q and d_o; where that is too much those
// stay in shared memory. Shared memory: at most the 163 KB of sm_80.
template <class T, int Dim>
using Geometry =
    std::conditional_t<std::is_same_v<T, float>, QueryGeometry<T, Dim, 2, 1, 8>,
                       QueryGeometry<T, Dim, Dim <= 128 ? 8 : 4, Dim <= 64 ? 2 : 1, 16>>;

template <class G>
void launch(Cuda& gpu, BackwardArgs<typename G::T> args) {
  args.in.template divide<G>();
  const int rows = 2 * (args.in.template stage_rows<G>() + args.in.template query_rows<G>());
  CUDA_CHECK(dev::launch(args.in.grid(args.B), args.in.threads(),
                         rows * Tile<typename G::T, G::kDim>::kRowBytes, gpu.stream,
                         ska_dq_kernel<G>, args));
}

}  // namespace

template <class T>
void backward_queries(Cuda& gpu, const BackwardArgs<T>& args) {
  with_dim(args.in.shape.D, [&](auto dim) { launch<Geometry<T, dim.value>>(gpu, args); });
}
template void backward_queries(Cuda&, const BackwardArgs<float>&);
template void backward_queries(Cuda&, const BackwardArgs<bf16>&);

}  // namespace rodimus::cuda::ska
