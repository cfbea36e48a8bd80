// dk and dv: a block owns a tile of keys and walks, head by head, the queries that see it. Here
// sharing keys pays most: k is loaded once and dk summed in registers over all heads that share it,
// in the order of the heads. Per head and tile of queries: s^T = k q^T, dp^T = v d_o^T, dv += p^T
// d_o, dk += ds^T q. A warp holds 16 keys, and all columns of dk and dv or, for wide heads, a part.
#include "kernels/cuda/ska/ska_backward.h"

namespace rodimus::cuda::ska {
namespace {

template <class Element, int Dim_, int KeyWarps_, int ColumnWarps_, int Queries_>
struct KeyGeometry {
  using T = Element;
  static constexpr int kDim = Dim_, kKeyWarps = KeyWarps_, kColumnWarps = ColumnWarps_,
                       kQueries = Queries_;
  static constexpr int kKeys = 16 * kKeyWarps, kThreads = 32 * kKeyWarps * kColumnWarps,
                       kColumns = kDim / kColumnWarps, kStageRows = 2 * kQueries;
};

// Which heads a block walks, and in what order. Group c of `groups` has the heads j = c mod groups,
// of which the H / sets_mod with equal j mod sets_mod form a set: a set shares its key head and its
// value head, all sets of a group share one of the two. sets_mod is a multiple of groups.
struct HeadOrder {
  int groups, sets_mod;
  bool keys_vary;  // from set to set; else values do, if there are several sets

  __host__ __device__ int sets() const { return sets_mod / groups; }
  __host__ __device__ int heads_per_set(int H) const { return H / sets_mod; }
  __device__ __forceinline__ int head(int group, int set, int r) const {
    return group + groups * set + sets_mod * r;
  }
};

// The queries that see any of the keys key0 .. key1 are begin .. end - 1.
struct Queries {
  int begin, end;
  __device__ __forceinline__ Queries(const Shape& shape, const int32_t* starts, int key0,
                                     int key1) {
    const int offset = shape.Tk - shape.T;
    begin = max(key0 - offset, 0);
    end = min(key1 + shape.left - offset + 1, shape.T);
    if (starts == nullptr || begin >= end) return;
    // Later documents do not see them; starts grow with the position.
    int low = begin;
    while (low < end) {
      const int middle = low + (end - low) / 2;
      if (starts[middle] <= key1) {
        low = middle + 1;
      } else {
        end = middle;
      }
    }
  }
};

template <class G>
__global__ void __launch_bounds__(G::kThreads, 1)
    ska_dkdv_kernel(const BackwardArgs<typename G::T> args, const HeadOrder order, int tiles) {
  using T = typename G::T;
  using Rows = Tile<T, G::kDim>;
  constexpr int kFragments = G::kQueries / 8;
  DYN_SHARED(shared);
  const Shape& shape = args.in.shape;
  const int b = static_cast<int>(blockIdx.x) / tiles, group = static_cast<int>(blockIdx.y);
  const int key0 = static_cast<int>(blockIdx.x) % tiles * G::kKeys;
  const int key1 = min(key0 + G::kKeys, shape.Tk) - 1;
  const int32_t* starts =
      args.in.starts == nullptr ? nullptr : args.in.starts + int64_t{b} * shape.T;
  const Queries queries(shape, starts, key0, key1);
  const int begin = queries.begin / G::kQueries,
            count = max(up(queries.end, G::kQueries) - begin, 0);  // tiles
  const int sets = order.sets(), per_set = order.heads_per_set(shape.H);

  // The operand that all sets share, that of the present set and of the next; two stages of q, d_o.
  const Rows memory{ptx::smem_u32(shared)};
  const auto keys = [&](int set) {
    return memory.from(order.keys_vary ? (1 + (set & 1)) * G::kKeys : 0);
  };
  const auto values = [&](int set) {
    return memory.from(order.keys_vary ? 0 : (1 + (set & 1)) * G::kKeys);
  };
  const auto stage_rows = [&](int stage) {
    return memory.from((sets > 1 ? 3 : 2) * G::kKeys + stage * G::kStageRows);
  };

  const int thread = static_cast<int>(threadIdx.x);
  const auto load_keys = [&](Rows to, const T* from, int head, int heads) {
    to.load(G::kKeys, thread, G::kThreads, shape, from, [&](int row) -> const T* {
      const int64_t at = (int64_t{b} * shape.Tk + key0 + row) * heads + head;
      return key0 + row <= key1 ? from + at * shape.D : nullptr;
    });
  };
  // What is needed for one tile of queries of one head; for the first of a set also its operand.
  const auto load = [&](int step) {
    if (step < sets * per_set * count) {
      const int head = step / count, set = head / per_set;
      const int h = order.head(group, set, head % per_set);
      if (step % (per_set * count) == 0) {
        if (set == 0 || order.keys_vary) load_keys(keys(set), args.in.k, h % shape.Hk, shape.Hk);
        if (set == 0 || !order.keys_vary) load_keys(values(set), args.in.v, h % shape.Hv, shape.Hv);
      }
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        const T* from = which == 0 ? args.in.q : args.d_o;
        const Rows to = stage_rows(step & 1).from(which * G::kQueries);
        to.load(G::kQueries, thread, G::kThreads, shape, from, [&](int row) -> const T* {
          const int i = (begin + step % count) * G::kQueries + row;
          const int64_t at = (int64_t{b} * shape.T + i) * shape.H + h;
          return i < shape.T ? from + at * shape.D : nullptr;
        });
      }
    }
    ptx::cp_commit();
  };

  const int key_warp = warp_id() % G::kKeyWarps, column0 = warp_id() / G::kKeyWarps * G::kColumns;
  const int warp_key0 = key0 + 16 * key_warp, g = lane_id() >> 2, q2 = 2 * (lane_id() & 3);
  const Slope slope{args.scale * kLog2e};
  float dk[1][G::kColumns / 8][4], dv[1][G::kColumns / 8][4];
  clear(dk);
  clear(dv);
  int step = 0;
  load(step);
  for (int set = 0; set < sets; ++set) {
    LeftRows<T, G::kDim, false> k[1], v[1];
    k[0].load(keys(set).from(16 * key_warp));
    v[0].load(values(set).from(16 * key_warp));
    for (int r = 0; r < per_set; ++r) {
      const int h = order.head(group, set, r);
      const int64_t row0 = (int64_t{b} * shape.H + h) * shape.T;
      for (int tile = begin; tile < begin + count; ++tile, ++step) {
        ptx::cp_wait<0>();
        __syncthreads();  // q and d_o are complete, and nobody reads the other stage any more
        load(step + 1);
        const Rows q = stage_rows(step & 1), d_o = q.from(G::kQueries);
        const int i0 = tile * G::kQueries, i1 = min(i0 + G::kQueries, shape.T) - 1;
        if (warp_key0 > last_key(shape, i1) || warp_key0 + 15 < first_key(shape, starts, i0))
          continue;
        const bool all = i0 + G::kQueries <= shape.T && warp_key0 + 15 <= last_key(shape, i0) &&
                         warp_key0 >= first_key(shape, starts, i1);
        float lse[kFragments][2], delta[kFragments][2];
#pragma unroll
        for (int n = 0; n < kFragments; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int64_t at = row0 + min(i0 + 8 * n + q2 + e, i1);
            lse[n][e] = args.lse[at];
            delta[n][e] = args.delta[at];
          }
        }
        float s[1][kFragments][4], ds[1][kFragments][4];
        multiply_transposed(s, k, q);
        multiply_transposed(ds, v, d_o);
#pragma unroll
        for (int n = 0; n < kFragments; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            bool seen = true;
            if (!all) {
              const int i = i0 + 8 * n + q2 + (e & 1), key = warp_key0 + g + 8 * (e >> 1);
              seen = i <= i1 && key <= last_key(shape, i) && key >= first_key(shape, starts, i);
            }
            slope.apply(s[0][n][e], ds[0][n][e], lse[n][e & 1], delta[n][e & 1], seen);
          }
        }
        multiply_add(dv[0], s[0], d_o, column0);
        multiply_add(dk[0], ds[0], q, column0);
      }
    }
    // The sums leave by way of the operand of this set.
    if (G::kColumnWarps > 1) __syncthreads();  // all warps of these keys are done with it
    const Rows way = (order.keys_vary ? keys(set) : values(set)).from(16 * key_warp);
    const int h = order.head(group, set, 0);
    const auto flush = [&](T* to, float(&sum)[1][G::kColumns / 8][4], int head, int heads,
                           float factor) {
      store_fragments(way, sum[0], {factor, factor}, column0, shape, [&](int row) -> T* {
        const int key = warp_key0 + row;
        const int64_t at = (int64_t{b} * shape.Tk + key) * heads + head;
        return to != nullptr && key <= key1 ? to + at * shape.D : nullptr;
      });
      clear(sum);
    };
    if (order.keys_vary || set + 1 == sets) flush(args.dk, dk, h % shape.Hk, shape.Hk, args.scale);
    if (!order.keys_vary || set + 1 == sets) flush(args.dv, dv, h % shape.Hv, shape.Hv, 1.0f);
  }
}

// dk and dv of 16 keys take Dim registers of a thread, so wide heads are cut: each of the warps
// that share keys computes the scores.
template <class T, int Dim>
using Geometry =
    std::conditional_t<std::is_same_v<T, float>, KeyGeometry<T, Dim, 2, Dim / 64, 8>,
                       KeyGeometry<T, Dim, 4, Dim <= 128 ? 1 : 2, Dim <= 64 ? 32 : 16>>;

template <class G>
void launch(Cuda& gpu, const BackwardArgs<typename G::T>& args, const HeadOrder& order) {
  const int tiles = (args.in.shape.Tk + G::kKeys - 1) / G::kKeys;
  const int rows = (order.sets() > 1 ? 3 : 2) * G::kKeys + 2 * G::kStageRows;
  const dim3 grid(narrow<unsigned>(args.B * tiles), narrow<unsigned>(order.groups));
  CUDA_CHECK(dev::launch(grid, G::kThreads, rows * Tile<typename G::T, G::kDim>::kRowBytes,
                         gpu.stream, ska_dkdv_kernel<G>, args, order, tiles));
}

}  // namespace

template <class T>
void backward_keys(Cuda& gpu, const BackwardArgs<T>& args) {
  const Shape& shape = args.in.shape;
  const int H = shape.H, Hk = shape.Hk, Hv = shape.Hv;
  with_dim(shape.D, [&](auto dim) {
    using G = Geometry<T, dim.value>;
    if (Hv % Hk == 0) return launch<G>(gpu, args, {Hk, Hv, false});
    if (Hk % Hv == 0) return launch<G>(gpu, args, {Hv, Hk, true});
    // Heads that share keys and heads that share values overlap: one walk for each.
    BackwardArgs<T> only_dk = args, only_dv = args;
    only_dk.dv = only_dv.dk = nullptr;
    launch<G>(gpu, only_dk, {Hk, H, false});
    launch<G>(gpu, only_dv, {Hv, H, true});
  });
}
template void backward_keys(Cuda&, const BackwardArgs<float>&);
template void backward_keys(Cuda&, const BackwardArgs<bf16>&);

}  // namespace rodimus::cuda::ska
