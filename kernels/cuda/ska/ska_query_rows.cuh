// What a block does that owns queries (forward, dq): each of its warps has 16 queries of
// G::kHeadsPerWarp heads. All heads of the block read the same key head, so that a key tile is
// loaded once for all of them; the value tile of a head is loaded by its own warps. Two stages:
// tile t + 1 arrives while tile t is multiplied.
#pragma once

#include "kernels/cuda/ska/ska_host.h"

namespace rodimus::cuda::ska {

template <class Element, int Dim_, int Warps_, int HeadsPerWarp_, int Keys_>
struct QueryGeometry {
  using T = Element;
  static constexpr int kDim = Dim_, kWarps = Warps_, kHeadsPerWarp = HeadsPerWarp_, kKeys = Keys_,
                       kThreads = 32 * kWarps;
};

// The inputs, (B,T,H,D) and the like, and how the warps of a block share heads and queries.
template <class T>
struct QueryInputs {
  const T *q, *k, *v;
  const int32_t* starts;
  Shape shape;
  int head_warps = 1, query_warps = 1;  // their product is the number of warps
  int groups = 1, tiles = 1;            // of the heads of a key head; of the queries

  // As many queries together as warps can hold, the rest of the warps for more heads: a value
  // serves the queries of its head alone, so with 16 heads of 16 queries a tile of keys and values
  // would be loaded for an eighth of the products that it serves with 2 heads of 128.
  template <class G>
  void divide() {
    const int heads = shape.H / shape.Hk, query_tiles = up(shape.T, 16);
    const int most = G::kWarps / std::min(G::kWarps, query_tiles) * G::kHeadsPerWarp;
    head_warps = up(up(heads, up(heads, most)), G::kHeadsPerWarp);
    groups = up(heads, head_warps * G::kHeadsPerWarp);
    query_warps = std::min(G::kWarps / head_warps, query_tiles);
    tiles = up(shape.T, 16 * query_warps);
  }
  dim3 grid(int64_t B, int splits = 1) const {
    return {narrow<unsigned>(B * tiles * splits), narrow<unsigned>(int64_t{shape.Hk} * groups)};
  }
  int threads() const { return 32 * head_warps * query_warps; }
  // Rows in shared memory of a stage (keys, then the values of each head), and of all queries.
  template <class G>
  __host__ __device__ int stage_rows() const {
    return (1 + head_warps * G::kHeadsPerWarp) * G::kKeys;
  }
  template <class G>
  __host__ __device__ int query_rows() const {
    return head_warps * query_warps * G::kHeadsPerWarp * 16;
  }
};

template <class G>
struct QueryRows {
  using T = typename G::T;
  using Rows = Tile<T, G::kDim>;

  const QueryInputs<T>& in;
  Rows memory;  // two stages, then what the kernel adds
  const int32_t* starts;
  int b, key_head, head_warp, first_head;  // first_head: this warp's first, among the key head's
  int tile_query, warp_query;              // first query of the block, of this warp
  int first, last;                         // keys that the block sees

  // blockIdx.y counts key heads and, within one, groups of its query heads.
  __device__ __forceinline__ QueryRows(const QueryInputs<T>& inputs, uint32_t shared, int b_,
                                       int tile)
      : in(inputs), memory{shared}, b(b_) {
    const Shape& shape = in.shape;
    starts = in.starts == nullptr ? nullptr : in.starts + int64_t{b} * shape.T;
    const int group = static_cast<int>(blockIdx.y) / shape.Hk;
    key_head = static_cast<int>(blockIdx.y) % shape.Hk;
    head_warp = warp_id() / in.query_warps;
    first_head = (group * in.head_warps + head_warp) * G::kHeadsPerWarp;
    tile_query = tile * 16 * in.query_warps;
    warp_query = tile_query + 16 * (warp_id() % in.query_warps);
    first = first_key(shape, starts, tile_query);
    last = last_key(shape, min(tile_query + 16 * in.query_warps, shape.T) - 1);
  }

  // Query of row g (part 0) or g + 8 (part 1) of this warp; may be T or more.
  __device__ __forceinline__ int query(int part) const {
    return warp_query + (lane_id() >> 2) + 8 * part;
  }
  // Query head of this warp's head m, or -1.
  __device__ __forceinline__ int head(int m) const {
    const int h = key_head + in.shape.Hk * (first_head + m);
    return h < in.shape.H ? h : -1;
  }
  // Of query i in a (B,T,H,D) array.
  __device__ __forceinline__ int64_t at(int i, int h) const {
    return ((int64_t{b} * in.shape.T + i) * in.shape.H + h) * in.shape.D;
  }
  // Of query i in a (B,H,T) array.
  __device__ __forceinline__ int64_t row_at(int i, int h) const {
    return (int64_t{b} * in.shape.H + h) * in.shape.T + i;
  }

  // This warp's 16 rows of head m among all query rows of the block.
  __device__ __forceinline__ Rows own(Rows rows, int m) const {
    return rows.from((warp_id() * G::kHeadsPerWarp + m) * 16);
  }
  // Starts copying this warp's rows of a (B,T,H,D) array.
  __device__ __forceinline__ void load_own(Rows rows, const T* from) const {
#pragma unroll
    for (int m = 0; m < G::kHeadsPerWarp; ++m) {
      const int h = head(m);
      own(rows, m).load(16, lane_id(), 32, in.shape, from, [&](int row) -> const T* {
        const int i = warp_query + row;
        return h >= 0 && i < in.shape.T ? from + at(i, h) : nullptr;
      });
    }
  }

  __device__ __forceinline__ Rows keys(int stage) const {
    return memory.from(stage * in.template stage_rows<G>());
  }
  __device__ __forceinline__ Rows values(int stage, int m) const {
    return keys(stage).from((1 + head_warp * G::kHeadsPerWarp + m) * G::kKeys);
  }
  // Starts copying the keys and values of a tile. Keys that no query of the block sees become
  // zeros: what lies there may be anything.
  __device__ __forceinline__ void load_stage(int stage, int tile) const {
    const Shape& shape = in.shape;
    const auto load = [&](Rows to, int thread, int threads, const T* from, int h, int heads) {
      to.load(G::kKeys, thread, threads, shape, from, [&](int row) -> const T* {
        const int j = tile * G::kKeys + row;
        const int64_t at = (int64_t{b} * shape.Tk + j) * heads + h;
        return h >= 0 && j >= first && j <= last ? from + at * shape.D : nullptr;
      });
    };
    load(keys(stage), static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), in.k, key_head,
         shape.Hk);
#pragma unroll
    for (int m = 0; m < G::kHeadsPerWarp; ++m) {
      const int h = head(m);
      load(values(stage, m), warp_id() % in.query_warps * 32 + lane_id(), in.query_warps * 32, in.v,
           h < 0 ? h : h % shape.Hv, shape.Hv);
    }
  }
};

// Which keys of a tile the rows of this warp see.
struct RowMask {
  int first[2], last;         // of row g and, first alone, g + 8; its last is 8 more
  int warp_first, warp_last;  // seen by any row
  int shared_first;           // seen by every row, up to warp_last - 15

  // Rows past the end take the last query's document; they are zeros and are not stored.
  template <class G>
  __device__ __forceinline__ explicit RowMask(const QueryRows<G>& rows) {
    const Shape& shape = rows.in.shape;
    const auto first_of = [&](int i) { return first_key(shape, rows.starts, min(i, shape.T - 1)); };
#pragma unroll
    for (int part = 0; part < 2; ++part) first[part] = first_of(rows.query(part));
    last = last_key(shape, rows.query(0));
    warp_first = first_of(rows.warp_query);
    shared_first = first_of(rows.warp_query + 15);
    warp_last = last_key(shape, rows.warp_query + 15);
  }
  __device__ __forceinline__ bool none(int key0, int keys) const {
    return key0 > warp_last || key0 + keys <= warp_first;
  }
  __device__ __forceinline__ bool all(int key0, int keys) const {
    return key0 >= shared_first && key0 + keys + 14 <= warp_last;
  }
  // Element e of fragment n.
  __device__ __forceinline__ bool sees(int key0, int n, int e) const {
    const int key = key0 + 8 * n + 2 * (lane_id() & 3) + (e & 1);
    return key >= first[e >> 1] && key <= last + 8 * (e >> 1);
  }
};

}  // namespace rodimus::cuda::ska
