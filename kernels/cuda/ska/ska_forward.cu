// Attention forward. A block owns a tile of queries and a group of the heads that share a key head
// (see divide()), and walks the key tiles of the window once: softmax is online, in powers of two.
// Traffic of a block: each key it sees once for all of its heads, each value of its heads once.
// Queries of the last tiles see the most keys, so those blocks start first. A few queries against
// many keys leave most of the GPU idle; then the keys are cut into splits, one block each, and
// ska_decode.cu adds them up.
#include <algorithm>
#include <cmath>
#include <optional>

#include "kernels/cuda/ska/ska_host.h"
#include "kernels/cuda/ska/ska_query_rows.cuh"
#include "kernels/memory.h"
#include "kernels/ska.h"

namespace rodimus {
namespace cuda::ska {
namespace {

template <class T>
struct ForwardArgs {
  QueryInputs<T> in;
  T* o;
  float* lse;
  float *split_o, *split_lse;  // (splits,B,T,H,D), (splits,B,H,T) in powers of two; null: one split
  int splits;
  int64_t all_rows;  // B T H
  float scale;       // log2(e) / sqrt(D)
};

// Queries in registers: the place where they arrive becomes that of the second stage.
template <class T>
constexpr bool kQueriesInRegisters = std::is_same_v<T, bf16>;

// The softmax of one head's 16 rows, so far.
struct RunningSoftmax {
  float largest[2] = {minus_infinity(), minus_infinity()};  // scaled
  float sum[2] = {0, 0};                                    // of this lane's columns

  // Scores -> weights relative to the largest score; o shrinks where that has grown.
  template <int N, int Columns>
  __device__ __forceinline__ void update(float (&s)[N][4], float (&o)[Columns][4], float scale) {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      float top = s[0][2 * part];
#pragma unroll
      for (int n = 0; n < N; ++n) top = fmaxf(top, fmaxf(s[n][2 * part], s[n][2 * part + 1]));
      const float before = largest[part], now = fmaxf(before, scale * quad_max(top));
      // -inf - -inf would be NaN for a row that has not seen a key yet.
      const float shift = now == minus_infinity() ? 0.0f : now;
      const float shrink = ptx::ex2(before - shift);
      largest[part] = now;
      sum[part] *= shrink;
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int e = 2 * part; e < 2 * part + 2; ++e) {
          s[n][e] = ptx::ex2(fmaf(s[n][e], scale, -shift));
          sum[part] += s[n][e];
        }
      }
#pragma unroll
      for (int n = 0; n < Columns; ++n) o[n][2 * part] *= shrink, o[n][2 * part + 1] *= shrink;
    }
  }
};

// This warp's rows of head h of `to` (B,T,H,D), by way of the memory of the stages.
template <class G, class To, int N>
__device__ __forceinline__ void store_outputs(To* to, const QueryRows<G>& rows,
                                              const float (&o)[N][4], const float (&factor)[2],
                                              int h) {
  const Tile<To, G::kDim> memory{rows.memory.base};
  store_fragments(memory.from(16 * warp_id()), o, factor, 0, rows.in.shape, [&](int row) {
    const int i = rows.warp_query + row;
    return h >= 0 && i < rows.in.shape.T ? to + rows.at(i, h) : nullptr;
  });
}

template <class G>
__global__ void __launch_bounds__(G::kThreads, 1)
    ska_forward_kernel(const ForwardArgs<typename G::T> args) {
  using T = typename G::T;
  constexpr int M = G::kHeadsPerWarp, kColumns = G::kDim / 8;
  constexpr bool kInRegisters = kQueriesInRegisters<T>;
  DYN_SHARED(shared);
  const Shape& shape = args.in.shape;
  const int x = static_cast<int>(blockIdx.x), block = x / args.in.tiles;
  const int split = block % args.splits;
  const QueryRows<G> rows(args.in, ptx::smem_u32(shared), block / args.splits,
                          args.in.tiles - 1 - x % args.in.tiles);
  const int first_tile = rows.first / G::kKeys, tiles = rows.last / G::kKeys + 1 - first_tile;
  const int per_split = (tiles + args.splits - 1) / args.splits;
  const int begin = first_tile + split * per_split,
            end = first_tile + min((split + 1) * per_split, tiles);

  const Tile<T, G::kDim> query_rows = rows.keys(kInRegisters ? 1 : 2);
  rows.load_own(query_rows, args.in.q);
  ptx::cp_commit();
  if (begin < end) rows.load_stage(0, begin);
  ptx::cp_commit();
  ptx::cp_wait<1>();
  __syncwarp();  // the queries of this warp are complete
  LeftRows<T, G::kDim, kInRegisters> q[M];
#pragma unroll
  for (int m = 0; m < M; ++m) q[m].load(rows.own(query_rows, m));

  const RowMask mask(rows);
  RunningSoftmax softmax[M];
  float o[M][kColumns][4];
  clear(o);
  for (int tile = begin; tile < end; ++tile) {
    const int stage = (tile - begin) & 1, key0 = tile * G::kKeys;
    ptx::cp_wait<0>();
    __syncthreads();  // the tile is complete, and nobody reads the other stage any more
    if (tile + 1 < end) rows.load_stage(stage ^ 1, tile + 1);
    ptx::cp_commit();
    if (mask.none(key0, G::kKeys)) continue;
    float s[M][G::kKeys / 8][4];
    multiply_transposed(s, q, rows.keys(stage));
    if (!mask.all(key0, G::kKeys)) {
#pragma unroll
      for (int n = 0; n < G::kKeys / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const bool seen = mask.sees(key0, n, e);
#pragma unroll
          for (int m = 0; m < M; ++m) s[m][n][e] = seen ? s[m][n][e] : minus_infinity();
        }
      }
    }
#pragma unroll
    for (int m = 0; m < M; ++m) {
      softmax[m].update(s[m], o[m], args.scale);
      multiply_add(o[m], s[m], rows.values(stage, m), 0);
    }
  }

  __syncthreads();  // nobody reads the stages any more: o takes their place
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int h = rows.head(m);
    float factor[2];
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const float sum = quad_sum(softmax[m].sum[part]);
      const float log2_sum = softmax[m].largest[part] + log2f(sum);
      // A split may have no key for the query.
      factor[part] = sum == 0 && args.split_o != nullptr ? 0.0f : 1.0f / sum;
      const int i = rows.query(part);
      if (h < 0 || i >= shape.T || (lane_id() & 3) != 0) continue;
      if (args.split_o == nullptr) {
        args.lse[rows.row_at(i, h)] = log2_sum * kLn2;
      } else {
        args.split_lse[split * args.all_rows + rows.row_at(i, h)] = log2_sum;
      }
    }
    if (args.split_o == nullptr) {
      store_outputs(args.o, rows, o[m], factor, h);
    } else {
      store_outputs(args.split_o + split * args.all_rows * shape.D, rows, o[m], factor, h);
    }
  }
}

// Registers: Dim / 2 a head for o and Dim / 4 for q, of the 255 of a thread. Shared memory: at most
// the 163 KB of sm_80.
template <class T, int Dim>
using Geometry =
    std::conditional_t<std::is_same_v<T, float>, QueryGeometry<T, Dim, 4, 1, 8>,
                       QueryGeometry<T, Dim, 8, Dim <= 128 ? 2 : 1, Dim <= 64 ? 32 : 16>>;

constexpr int64_t kLeastKeysOfSplit = 32;

template <class G>
void launch_forward(Cuda& gpu, ForwardArgs<typename G::T> args, int64_t B) {
  using T = typename G::T;
  args.in.template divide<G>();
  const Shape& shape = args.in.shape;
  const dim3 blocks = args.in.grid(B);
  const int64_t seen = std::min<int64_t>(shape.Tk, int64_t{shape.left} + shape.T);
  args.splits = 1;
  if (shape.T <= 16 && args.in.starts == nullptr)  // as in the generation of text
    args.splits = splits_for(gpu.sm_count, int64_t{blocks.x} * blocks.y, seen / kLeastKeysOfSplit);
  std::optional<memory::Scratch<float>> split_o, split_lse;
  if (args.splits > 1) {
    args.split_o = split_o.emplace(args.splits * args.all_rows * shape.D, Device::cuda).data();
    args.split_lse = split_lse.emplace(args.splits * args.all_rows, Device::cuda).data();
  }
  const int stage_rows = args.in.template stage_rows<G>(),
            query_rows = args.in.template query_rows<G>(),
            second_rows =
                kQueriesInRegisters<T> ? std::max(stage_rows, query_rows) : stage_rows + query_rows;
  const int threads = args.in.threads(), at_once = threads / 2 * G::kDim * 4;  // of o, as f32
  const int shared = std::max((stage_rows + second_rows) * Tile<T, G::kDim>::kRowBytes,
                              args.splits > 1 ? at_once : 0);
  CUDA_CHECK(dev::launch(args.in.grid(B, args.splits), threads, shared, gpu.stream,
                         ska_forward_kernel<G>, args));
  if (args.splits > 1)
    combine_splits(gpu, args.o, args.lse, args.split_o, args.split_lse, args.splits, B, shape);
}

}  // namespace

}  // namespace cuda::ska

template <class T>
void ska_forward(Cuda& gpu, const SkaForwardArgs<T>& args) {
  const SkaDims dims = ska_checked(args.dims, args.starts != nullptr);
  if (dims.B == 0 || dims.T == 0) return;
  const cuda::ska::Shape shape = cuda::ska::shape_of<T>(dims, {args.o, args.q, args.k, args.v});
  cuda::ska::ForwardArgs<T> pass{};
  pass.in = {args.q, args.k, args.v, args.starts, shape};
  pass.o = args.o;
  pass.lse = args.lse;
  pass.all_rows = dims.B * dims.T * dims.H;
  pass.scale = cuda::ska::kLog2e / std::sqrt(static_cast<float>(dims.D));
  cuda::ska::with_dim(dims.D, [&](auto dim) {
    cuda::ska::launch_forward<cuda::ska::Geometry<T, dim.value>>(gpu, pass, dims.B);
  });
}

template void ska_forward(Cuda&, const SkaForwardArgs<float>&);
template void ska_forward(Cuda&, const SkaForwardArgs<bf16>&);

}  // namespace rodimus
