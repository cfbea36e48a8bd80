// The walk through the chunks of a sequence, forward with the state S (K, V) or in reverse with its
// gradient dS. One warp owns 16 value columns: its slice of the state stays in f32 accumulators for
// the whole walk, columns do not interact, so warps share nothing but the chunk's record.
//   forward: o  = read S   + scores v,       S  = diag(decay) S  + write^T v;
//   reverse: dv = write dS + scores^T d_o,   dS = diag(decay) dS + read^T d_o.
// Device memory: v (or d_o) is read once, o (or dv) written once; the records are read by every
// block, from the L2 cache but for the first time. One stage of copies is in flight while the last
// is worked on.
#pragma once

#include <algorithm>

#include "kernels/cuda/ddts/ddts_chunk.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/ddts.h"

namespace rodimus::cuda::ddts {

inline constexpr int kWarpColumns = kSub;
inline constexpr int kPair = 2;             // chunks between two checkpoints
inline constexpr int kCheckpointRows = 32;  // value columns of one checkpoint image

// Checkpoints: states at the borders of pairs of chunks, (B, pairs, ceil(V / 32), slices) images of
// (32 value columns, 64 keys).
struct CheckpointLayout {
  int pairs, V, slices;

  __host__ __device__ int row_blocks() const { return (V + kCheckpointRows - 1) / kCheckpointRows; }
  __host__ __device__ int64_t image(int b, int pair, int row_block, int slice) const {
    return ((static_cast<int64_t>(b) * pairs + pair) * row_blocks() + row_block) * slices + slice;
  }
  static constexpr int kImage = kCheckpointRows * kSlice;  // elements
};

template <class T>
struct Walk {
  const T* records;
  const T* in;            // v, or d_o in reverse: (B,T,V)
  T* out;                 // o, or dv: (B,T,V)
  const float* state_in;  // (B,K,V) or null = zeros
  float* state_out;       // (B,K,V) or null = not wanted
  T* checkpoints;         // the state before each pair, in reverse: the gradient after each pair.
                          // The one the walk begins with is left out when state_in is null.
  int length, K, V, chunks, pairs;
  int steps;     // chunks to walk through
  bool vectors;  // rows of in and out are aligned to 16 bytes
};

template <class T, int kSlices>
struct WalkShape {
  // f32 records of more than 64 keys leave no room for a second stage on sm_80.
  static constexpr int kStages = kIsF32<T> && kSlices > 1 ? 1 : 2;
  static constexpr int kMaxWarps = kSlices == 1 && !kIsF32<T> ? 8 : 4;
  static constexpr int kColumns = kChunk * kWarpColumns;   // elements of a warp's image of `in`
  static constexpr int kMinBlocks = kSlices == 1 ? 2 : 1;  // per SM: bounds the registers
  static constexpr int kRows = kIsF32<T> && kSlices > 1 ? 1 : 2;  // sub-chunks of outputs of a pass

  static constexpr int record_bytes() { return Record<T>{kSlices}.size() * int{sizeof(T)}; }
  static constexpr int bytes(int warps) {
    return kStages * (record_bytes() + warps * kColumns * int{sizeof(T)});
  }
};

// A warp's 16 columns of a state (K, V) transposed: 16 x 16 sums per 16 keys.
template <int kSlices>
struct State {
  static constexpr int kTiles = kSlices * kSlice / kSub;
  Sums tile[kTiles];

  // Calls f(element, key, column), f(float&, int) for those inside (K, V).
  template <class F>
  __device__ __forceinline__ void each(int K, int V, int column, F f) {
    const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int key = n * kSub + 8 * (i >> 2) + 2 * q + (i & 1);
        const int j = column + g + 8 * (i >> 1 & 1);
        if (key < K && j < V) f(tile[n].half[i >> 2][i & 3], key * V + j);
      }
    }
  }

  __device__ __forceinline__ void load(const float* from, int K, int V, int column) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) tile[n].clear();
    if (from != nullptr) each(K, V, column, [&](float& x, int at) { x = from[at]; });
  }
  __device__ __forceinline__ void store(float* to, int K, int V, int column) {
    each(K, V, column, [&](float& x, int at) { to[at] = x; });
  }

  __device__ __forceinline__ void scale_keys(const float* decay) {
    const int q = threadIdx.x & 3;
#pragma unroll
    for (int n = 0; n < 2 * kTiles; ++n) {
      const float2 d = load_float2(decay + n * 8 + 2 * q);
      float(&x)[4] = tile[n >> 1].half[n & 1];
      x[0] *= d.x, x[1] *= d.y, x[2] *= d.x, x[3] *= d.y;
    }
  }

  template <class T>
  __device__ __forceinline__ void store_checkpoint(T* images, const CheckpointLayout& layout, int b,
                                                   int pair, int column) {
    if (column >= layout.row_blocks() * kCheckpointRows) return;
    const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
    T* const first =
        images + layout.image(b, pair, column / kCheckpointRows, 0) * CheckpointLayout::kImage;
#pragma unroll
    for (int n = 0; n < 2 * kTiles; ++n) {
      T* image = first + n / (kSlice / 8) * CheckpointLayout::kImage;
      const float(&x)[4] = tile[n >> 1].half[n & 1];
      const int c = n % (kSlice / 8) * 8 + 2 * q;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        T* to = image + image_at<T, kSlice>(column % kCheckpointRows + g + 8 * h, c);
        if constexpr (kIsF32<T>) {
          ptx::stg64(to, make_uint2(__float_as_uint(x[2 * h]), __float_as_uint(x[2 * h + 1])));
        } else {
          ptx::stg32(to, dev::pack_bf16(x[2 * h], x[2 * h + 1]));
        }
      }
    }
  }
};

// 16 tokens x 16 columns of sums to rows of `to` (rows, V), columns from `column`.
template <class T>
__device__ __forceinline__ void store_tokens(T* to, const Sums& sums, int row, int rows, int column,
                                             int V, bool vectors) {
  const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int t = row + g + 8 * h;
    const float x[4] = {sums.half[0][2 * h], sums.half[0][2 * h + 1], sums.half[1][2 * h],
                        sums.half[1][2 * h + 1]};
    T* at = to + static_cast<int64_t>(t) * V + column;
    if (!vectors) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = 8 * (i >> 1) + 2 * q + (i & 1);
        if (t < rows && column + j < V) at[j] = dev::from_float<T>(x[i]);
      }
    } else if constexpr (kIsF32<T>) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int j = 8 * half + 2 * q;
        if (t < rows && column + j < V)
          ptx::stg64(at + j,
                     make_uint2(__float_as_uint(x[2 * half]), __float_as_uint(x[2 * half + 1])));
      }
    } else {
      // Lanes in pairs trade halves, so that each holds four columns in a row and the warp writes
      // whole 32-byte sectors.
      const bool odd = q & 1;
      const uint32_t low = dev::pack_bf16(x[0], x[1]), high = dev::pack_bf16(x[2], x[3]);
      const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? low : high, 1);
      const int j = odd ? 6 + 2 * q : 2 * q;
      if (t < rows && column + j < V)
        ptx::stg64(at + j, odd ? make_uint2(other, high) : make_uint2(low, other));
    }
  }
}

// forward: writes o; states: leaves checkpoints only; reverse: writes dv and leaves checkpoints.
enum class Walks { forward, states, reverse };

template <class T, int kSlices, Walks kWalks>
__global__ void __launch_bounds__(WalkShape<T, kSlices>::kMaxWarps * 32,
                                  WalkShape<T, kSlices>::kMinBlocks) ddts_walk_kernel(Walk<T> w) {
  using Shape = WalkShape<T, kSlices>;
  constexpr bool kReverse = kWalks == Walks::reverse, kOutputs = kWalks != Walks::states;
  constexpr int kRows = Shape::kRows;
  [[maybe_unused]] constexpr int kUnrolled = kUnrolledSubs<T>;  // in a pragma only
  DYN_SHARED(bytes);
  const Record<T> layout{kSlices};
  const int tid = threadIdx.x, threads = blockDim.x, warp = tid / 32, lane = tid & 31;
  const int b = blockIdx.y, column = (blockIdx.x * (threads / 32) + warp) * kWarpColumns;
  const int stage_elements = layout.size() + threads / 32 * Shape::kColumns;
  T* const stages = reinterpret_cast<T*>(bytes);
  const CheckpointLayout checkpoint_layout{w.pairs, w.V, kSlices};
  // Without outputs only write | decay is needed, the end of the record.
  const int skip = kOutputs ? 0 : layout.write();

  const auto chunk_at = [&](int step) { return kReverse ? w.chunks - 1 - step : step; };
  const auto load_stage = [&](int step) {
    const int chunk = chunk_at(step), t0 = chunk * kChunk;
    T* record = stages + step % Shape::kStages * stage_elements;
    const T* from = w.records + (static_cast<int64_t>(b) * w.chunks + chunk) * layout.size();
    copy_async(record + skip, from + skip, layout.size() - skip, tid, threads);
    load_columns<T, kWarpColumns>(record + layout.size() + warp * Shape::kColumns,
                                  w.in + (static_cast<int64_t>(b) * w.length + t0) * w.V,
                                  w.length - t0, column, w.V, w.vectors, lane, 32);
    ptx::cp_commit();
  };
  // The state at a border between pairs goes to its checkpoint.
  const auto border = [&](State<kSlices>& state, int step) {
    if (kWalks == Walks::forward || (step == 0 && w.state_in == nullptr)) return;
    const int chunk = chunk_at(step);  // the next one
    if (kReverse ? chunk >= 0 && (chunk % kPair == kPair - 1 || step == 0) : chunk % kPair == 0)
      state.store_checkpoint(w.checkpoints, checkpoint_layout, b, chunk / kPair, column);
  };

  State<kSlices> state;
  const int64_t state_at = static_cast<int64_t>(b) * w.K * w.V;
  state.load(w.state_in == nullptr ? nullptr : w.state_in + state_at, w.K, w.V, column);
  if (Shape::kStages > 1 && w.steps > 0) load_stage(0);

  for (int step = 0; step < w.steps; ++step) {
    border(state, step);
    if constexpr (Shape::kStages == 1) {
      __syncthreads();  // no warp reads the last record any more
      load_stage(step);
    }
    ptx::cp_wait<0>();
    __syncthreads();  // the record is whole, and no warp reads the one before it any more
    if (Shape::kStages > 1 && step + 1 < w.steps) load_stage(step + 1);

    const T* record = stages + step % Shape::kStages * stage_elements;
    const T* columns = record + layout.size() + warp * Shape::kColumns;
    // Operand of the outputs, and of the state.
    const T* to_out = record + (kReverse ? layout.write() : layout.read());
    const T* to_state = record + (kReverse ? layout.read() : layout.write());

    // In passes, to save registers: first the sub-chunks of outputs that fewer others reach; with
    // the last pass the columns update the state.
#pragma unroll 1
    for (int pass = 0; pass < kSubs / kRows; ++pass) {
      const bool last = pass == kSubs / kRows - 1;
      const int first = kReverse ? kSubs - (pass + 1) * kRows : pass * kRows;
      Sums out[kRows];
      if (kOutputs) {
#pragma unroll
        for (int i = 0; i < kRows; ++i) out[i].clear();
#pragma unroll
        for (int n = 0; n < State<kSlices>::kTiles; ++n) {
          const Frag<T> s = to_frag<T>(state.tile[n]);
          const T* image = to_out + n / kSubs * kOperandImage;
#pragma unroll
          for (int i = 0; i < kRows; ++i)
            multiply(out[i], load_frag<T, kSlice>(image, (first + i) * kSub, n % kSubs * kSub), s);
        }
      }
      if (last) state.scale_keys(reinterpret_cast<const float*>(record + layout.decay()));
#pragma unroll kUnrolled
      for (int s = 0; s < kSubs; ++s) {
        if (!last && (!kOutputs || (kReverse ? s < first : s >= first + kRows))) continue;
        const Frag<T> x = load_frag_transposed<T, kWarpColumns>(columns, s * kSub, 0);
        if (kOutputs) {
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
            const int row = first + i;
            if (kReverse ? row > s : row < s) continue;
            const T* block = record + layout.scores() +
                             (kReverse ? score_block(s, row) : score_block(row, s)) * kScoreImage;
            multiply(out[i],
                     kReverse ? load_frag_transposed<T, kSub>(block, 0, 0)
                              : load_frag<T, kSub>(block, 0, 0),
                     x);
          }
        }
        if (!last) continue;
#pragma unroll
        for (int n = 0; n < State<kSlices>::kTiles; ++n)
          multiply(state.tile[n], x,
                   load_frag_transposed<T, kSlice>(to_state + n / kSubs * kOperandImage, s * kSub,
                                                   n % kSubs * kSub));
      }
      if (kOutputs) {
        const int t0 = chunk_at(step) * kChunk;
        T* to = w.out + (static_cast<int64_t>(b) * w.length + t0) * w.V;
#pragma unroll
        for (int i = 0; i < kRows; ++i)
          store_tokens(to, out[i], (first + i) * kSub, w.length - t0, column, w.V, w.vectors);
      }
    }
  }
  border(state, w.steps);
  if (w.state_out != nullptr) state.store(w.state_out + state_at, w.K, w.V, column);
}

// ---- Host side ----------------------------------------------------------------------------------

inline constexpr int64_t kMaxKeys = 2 * kSlice;

inline void check_dims(DdtsDims dims) {
  CHECK(dims.B >= 1 && dims.T >= 1 && dims.K >= 1 && dims.V >= 1, "ddts: B = ", dims.B,
        ", T = ", dims.T, ", K = ", dims.K, ", V = ", dims.V, "; every size must be at least 1");
  CHECK(dims.K <= kMaxKeys, "ddts: K = ", dims.K, "; the CUDA kernels take at most ", kMaxKeys,
        " keys");
  // Positions in a state and tokens of a sequence are counted in int; B is a grid's dimension.
  CHECK(dims.B < 1 << 16 && dims.T < 1 << 30 && dims.V < 1 << 22, "ddts: B = ", dims.B,
        ", T = ", dims.T, ", V = ", dims.V,
        "; the CUDA kernels take B < 2^16, T < 2^30, V < 2^22 in one call");
}

struct Tiling {
  explicit Tiling(DdtsDims dims)
      : chunks(static_cast<int>((dims.T + kChunk - 1) / kChunk)),
        pairs((chunks + kPair - 1) / kPair),
        slices(dims.K <= kSlice ? 1 : 2) {}
  int chunks, pairs;  // per sequence
  int slices;         // of keys
};

inline bool aligned(const void* pointer, int64_t row_bytes) {
  return (reinterpret_cast<uintptr_t>(pointer) | static_cast<uintptr_t>(row_bytes)) % 16 == 0;
}

template <class T>
void launch_records(const Cuda& gpu, T* records, const Sequences<T>& in, DdtsDims dims) {
  const Tiling tiling(dims);
  CUDA_CHECK(dev::launch(dim3(static_cast<unsigned>(dims.B * tiling.chunks)), dim3(kRecordThreads),
                         sizeof(RecordsShared<T>), gpu.stream, ddts_records_kernel<T>, records, in,
                         tiling.slices));
}

template <class T, int kSlices, Walks kWalks>
void launch_walk(const Cuda& gpu, const Walk<T>& walk, DdtsDims dims) {
  using Shape = WalkShape<T, kSlices>;
  // Wide blocks share a record among more columns; narrow ones fill the GPU when there are few.
  constexpr int kNarrow = 4;
  const int64_t columns = int64_t{Shape::kMaxWarps} * kWarpColumns;
  const bool wide = dims.B * ((dims.V + columns - 1) / columns) >= gpu.sm_count;
  const int needed = CheckpointLayout{0, static_cast<int>(dims.V), 0}.row_blocks() *
                     (kCheckpointRows / kWarpColumns);  // whole checkpoint images
  const int warps = std::min({needed, Shape::kMaxWarps, wide ? Shape::kMaxWarps : kNarrow});
  const int64_t block_columns = int64_t{warps} * kWarpColumns;
  const dim3 grid(static_cast<unsigned>((dims.V + block_columns - 1) / block_columns),
                  static_cast<unsigned>(dims.B));
  CUDA_CHECK(dev::launch(grid, dim3(static_cast<unsigned>(warps * 32)), Shape::bytes(warps),
                         gpu.stream, ddts_walk_kernel<T, kSlices, kWalks>, walk));
}

template <Walks kWalks, class T>
void launch_walk(const Cuda& gpu, const Walk<T>& walk, DdtsDims dims) {
  Tiling(dims).slices == 1 ? launch_walk<T, 1, kWalks>(gpu, walk, dims)
                           : launch_walk<T, 2, kWalks>(gpu, walk, dims);
}

}  // namespace rodimus::cuda::ddts
