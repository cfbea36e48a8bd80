// DDTS backward on the GPU. Nothing was saved by forward, so first the records of all chunks
// (ddts_chunk.cuh), then two walks (ddts_walk.cuh): forward through v, which leaves the state
// before every pair of chunks, and in reverse through d_o, which writes dv and leaves the gradient
// of the state after every pair. With these a pair of chunks needs no other, and the rest is
// parallel over pairs (pairs_kernel). Every sum has one owner and one order: results repeat to the
// bit. Scratch: K V elements of T per chunk for the checkpoints (in bf16 half of v at K = 64), and
// the records.
#include "kernels/cuda/ddts/ddts_walk.cuh"
#include "kernels/cuda/ddts/ddts_within.cuh"
#include "kernels/memory.h"

namespace rodimus {
namespace {

using namespace cuda;
using namespace cuda::ddts;

// Backward, the part that sums over value columns: one block per (sequence, pair of chunks, slice
// of keys) goes through all value columns in order and keeps
//   dread (64, 64) = d_o S^T,   dwrite = v dS^T,   dscores = d_o v^T,   state_dot = sum of S dS
// of both chunks in registers; no sum crosses blocks. Half of the warps work on each chunk. The
// state S before the pair and its gradient dS after it come from checkpoints; S between the two
// chunks is one step from the first, dS between them one step from the second, made per block of
// columns by the half that needs it. Then backward_within() ends both chunks. Device memory: v and
// d_o once, half a state per chunk and direction.
template <class T>
struct PairGradients {
  InputGradients<T> out;
  const T *v, *d_o;  // (B,T,V)
  const T* records;
  const T *states, *dstates;  // checkpoints; those of the first and last pair may be zeros:
  bool state_is_zero, dstate_is_zero;  // then they are not read
  int V, pairs, slices;
  bool vectors;  // rows of v and d_o are aligned to 16 bytes
};

template <class T>
struct PairShared {
  static constexpr int kBlock = kCheckpointRows;  // value columns of one stage
  static constexpr int kStages = kIsF32<T> ? 2 : 3;

  struct Stage {
    T v[kPair][kChunk * kBlock], d_o[kPair][kChunk * kBlock];
    T state[CheckpointLayout::kImage], dstate[CheckpointLayout::kImage];
  };
  struct Products {
    T step[kPair][kOperandImage];  // what makes dS of the first chunk, S of the second
    Stage stages[kStages];
  };
  struct Within {
    ChunkGradients gradients[kPair];
    WithinShared within;
  };
  static constexpr size_t kBytes = sizeof(Products) > sizeof(Within) ? sizeof(Products)
                                                                     : sizeof(Within);
};

inline constexpr int kPairThreads = 256;

template <class T>
__global__ void __launch_bounds__(kPairThreads) pairs_kernel(PairGradients<T> p, Sequences<T> in) {
  using Shared = PairShared<T>;
  constexpr int kBlock = Shared::kBlock;
  [[maybe_unused]] constexpr int kUnrolled = kUnrolledSubs<T>;  // in a pragma only
  DYN_SHARED(bytes);
  auto& sm = *reinterpret_cast<typename Shared::Products*>(bytes);
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane >> 2, q = lane & 3;
  const int half = warp / kSubs,
            part = warp % kSubs;  // chunk of the pair; 16 keys, blocks of scores
  const int pair = blockIdx.x, slice = blockIdx.y, b = blockIdx.z;
  const int first = pair * kPair;
  const bool whole = first + 1 < in.chunks;  // else there is no second chunk
  const Record<T> layout{p.slices};
  const CheckpointLayout checkpoints{p.pairs, p.V, p.slices};
  const T* record = p.records + (static_cast<int64_t>(b) * in.chunks + first) * layout.size();
  const bool zero_state = p.state_is_zero && pair == 0;
  const bool zero_dstate = p.dstate_is_zero && pair == p.pairs - 1;

  const auto load_stage = [&](int block) {
    auto& stage = sm.stages[block % Shared::kStages];
#pragma unroll
    for (int h = 0; h < kPair; ++h) {
      const int t0 = (first + h) * kChunk;  // the last pair may have no second chunk
      const int64_t at = (static_cast<int64_t>(b) * in.length + min(t0, in.length - 1)) * p.V;
      load_columns<T, kBlock>(stage.v[h], p.v + at, in.length - t0, block * kBlock, p.V, p.vectors,
                              tid, kPairThreads);
      load_columns<T, kBlock>(stage.d_o[h], p.d_o + at, in.length - t0, block * kBlock, p.V,
                              p.vectors, tid, kPairThreads);
    }
    const int64_t image = checkpoints.image(b, pair, block, slice) * CheckpointLayout::kImage;
    copy_async(stage.state, p.states + image, CheckpointLayout::kImage, tid, kPairThreads,
               zero_state);
    copy_async(stage.dstate, p.dstates + image, CheckpointLayout::kImage, tid, kPairThreads,
               zero_dstate);
  };

  // The first chunk's dS needs the second one's queries and decay, the second one's S the first
  // one's keys and decay.
  copy_async(sm.step[0],
             record + (whole ? layout.size() : 0) + layout.read() + slice * kOperandImage,
             kOperandImage, tid, kPairThreads, !whole);
  copy_async(sm.step[1], record + layout.write() + slice * kOperandImage, kOperandImage, tid,
             kPairThreads);
  float decay[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const T* other = record + (half == 0 ? layout.size() : 0) + layout.decay();
    decay[h] = half == 1 || whole
                   ? reinterpret_cast<const float*>(other)[slice * kSlice + part * kSub + g + 8 * h]
                   : 1.0f;
  }
  const int blocks = checkpoints.row_blocks();
#pragma unroll
  for (int i = 0; i < Shared::kStages - 1; ++i) {
    if (i < blocks) load_stage(i);
    ptx::cp_commit();
  }

  Sums dread[kSubs], dwrite[kSubs], dscores[3];
#pragma unroll
  for (int i = 0; i < kSubs; ++i) dread[i].clear(), dwrite[i].clear();
#pragma unroll
  for (int i = 0; i < 3; ++i) dscores[i].clear();
  float state_dot[2] = {0.0f, 0.0f};

  for (int block = 0; block < blocks; ++block) {
    ptx::cp_wait<Shared::kStages - 2>();
    __syncthreads();  // the stage is whole, and no warp reads the one before it any more
    if (block + Shared::kStages - 1 < blocks) load_stage(block + Shared::kStages - 1);
    ptx::cp_commit();
    const auto& stage = sm.stages[block % Shared::kStages];
    const T *v = stage.v[half], *d_o = stage.d_o[half];
#pragma unroll 1
    for (int j = 0; j < kBlock; j += kSub) {
      const Frag<T> given = load_frag_transposed<T, kSlice>(half == 0 ? stage.state : stage.dstate,
                                                            j, part * kSub);  // rows: keys
      Sums made = to_sums(
          load_frag_transposed<T, kSlice>(half == 0 ? stage.dstate : stage.state, j, part * kSub));
#pragma unroll
      for (int i = 0; i < 8; ++i) made.half[i >> 2][i & 3] *= decay[i >> 1 & 1];
      const T* rows = half == 0 ? stage.d_o[1] : stage.v[0];
#pragma unroll kUnrolled
      for (int s = 0; s < kSubs; ++s)
        multiply(made, load_frag_transposed<T, kSlice>(sm.step[half], s * kSub, part * kSub),
                 load_frag_transposed<T, kBlock>(rows, s * kSub, j));
      const Sums other = to_sums(given);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        state_dot[i >> 1 & 1] += made.half[i >> 2][i & 3] * other.half[i >> 2][i & 3];
      const Frag<T> made_frag = to_frag<T>(made);
      Frag<T> state, dstate;  // registers are selected one by one: an array of both would be memory
#pragma unroll
      for (int i = 0; i < 4 * Frag<T>::kPlanes; ++i) {
        state.r[i >> 2][i & 3] = half == 0 ? given.r[i >> 2][i & 3] : made_frag.r[i >> 2][i & 3];
        dstate.r[i >> 2][i & 3] = half == 0 ? made_frag.r[i >> 2][i & 3] : given.r[i >> 2][i & 3];
      }
#pragma unroll
      for (int s = 0; s < kSubs; ++s)
        multiply(dread[s], load_frag<T, kBlock>(d_o, s * kSub, j), state);
#pragma unroll
      for (int s = 0; s < kSubs; ++s)
        multiply(dwrite[s], load_frag<T, kBlock>(v, s * kSub, j), dstate);
#pragma unroll
      for (int i = 0; i < 3; ++i) {
        const int index = part + kSubs * i;  // of score_block(row, col)
        if (index >= kScoreBlocks) break;
        const int row = index < 1 ? 0 : index < 3 ? 1 : index < 6 ? 2 : 3;
        const int col = index - score_block(row, 0);
        multiply(dscores[i], load_frag<T, kBlock>(v, col * kSub, j),
                 load_frag<T, kBlock>(d_o, row * kSub, j));
      }
    }
  }
  __syncthreads();  // no warp reads a stage any more

  auto& end = *reinterpret_cast<typename Shared::Within*>(bytes);
  ChunkGradients& mine = end.gradients[half];
#pragma unroll
  for (int s = 0; s < kSubs; ++s) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int at = image_at<float, kSlice>(s * kSub + g + (i >> 1 & 1) * 8,
                                             part * kSub + (i >> 2) * 8 + 2 * q + (i & 1));
      mine.dq[at] = dread[s].half[i >> 2][i & 3];
      mine.dk[at] = dwrite[s].half[i >> 2][i & 3];
    }
  }
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const int index = part + kSubs * i;
    if (index >= kScoreBlocks) break;
    const int row = index < 1 ? 0 : index < 3 ? 1 : index < 6 ? 2 : 3;
    const int col = index - score_block(row, 0);
#pragma unroll
    for (int e = 0; e < 8; ++e)
      mine.dscores[image_at<float, kChunk>(col * kSub + g + (e >> 1 & 1) * 8,
                                           row * kSub + (e >> 2) * 8 + 2 * q + (e & 1))] =
          dscores[i].half[e >> 2][e & 3];
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    state_dot[h] += __shfl_xor_sync(0xffffffffu, state_dot[h], 1);
    state_dot[h] += __shfl_xor_sync(0xffffffffu, state_dot[h], 2);
    if (q == 0) mine.state_dot[part * kSub + g + 8 * h] = state_dot[h];
  }
  for (int h = 0; h < (whole ? 2 : 1); ++h)
    backward_within(p.out, end.gradients[h], end.within, in, b, first + h, slice);
}

}  // namespace

template <class T>
void ddts_backward(Cuda& gpu, const DdtsBackwardArgs<T>& args) {
  const DdtsDims& dims = args.dims;
  check_dims(dims);
  const Tiling tiling(dims);
  const int length = static_cast<int>(dims.T), V = static_cast<int>(dims.V);
  const Sequences<T> sequences{
      args.q, args.k, args.g, args.starts, length, static_cast<int>(dims.K), tiling.chunks};
  const memory::Scratch<T> records(dims.B * tiling.chunks * Record<T>{tiling.slices}.size(),
                                   Device::cuda);
  launch_records<T>(gpu, records.data(), sequences, dims);

  const CheckpointLayout layout{tiling.pairs, V, tiling.slices};
  const int64_t checkpoint = layout.image(static_cast<int>(dims.B), 0, 0, 0) * layout.kImage;
  const memory::Scratch<T> states(checkpoint, Device::cuda), dstates(checkpoint, Device::cuda);
  const int64_t row_bytes = dims.V * int64_t{sizeof(T)};
  Walk<T> walk{};
  walk.records = records.data();
  walk.in = args.v;
  walk.checkpoints = states.data();
  walk.state_in = args.state_in;
  walk.length = length;
  walk.K = sequences.K;
  walk.V = V;
  walk.chunks = tiling.chunks;
  walk.pairs = tiling.pairs;
  walk.steps = (tiling.pairs - 1) * kPair;
  walk.vectors = aligned(args.v, row_bytes);
  launch_walk<Walks::states>(gpu, walk, dims);

  walk.in = args.d_o;
  walk.out = args.dv;
  walk.checkpoints = dstates.data();
  walk.state_in = args.dstate_out;
  walk.state_out = args.dstate_in;
  walk.steps = tiling.chunks;
  walk.vectors = aligned(args.d_o, row_bytes) && aligned(args.dv, row_bytes);
  launch_walk<Walks::reverse>(gpu, walk, dims);

  PairGradients<T> pairs{};
  pairs.out = {args.dq, args.dk, args.dg};
  pairs.v = args.v;
  pairs.d_o = args.d_o;
  pairs.records = records.data();
  pairs.states = states.data();
  pairs.dstates = dstates.data();
  pairs.state_is_zero = args.state_in == nullptr;
  pairs.dstate_is_zero = args.dstate_out == nullptr;
  pairs.V = V;
  pairs.pairs = tiling.pairs;
  pairs.slices = tiling.slices;
  pairs.vectors = aligned(args.v, row_bytes) && aligned(args.d_o, row_bytes);
  const dim3 grid(static_cast<unsigned>(tiling.pairs), static_cast<unsigned>(tiling.slices),
                  static_cast<unsigned>(dims.B));
  CUDA_CHECK(dev::launch(grid, dim3(kPairThreads), PairShared<T>::kBytes, gpu.stream,
                         pairs_kernel<T>, pairs, sequences));
}

template void ddts_backward(Cuda&, const DdtsBackwardArgs<float>&);
template void ddts_backward(Cuda&, const DdtsBackwardArgs<bf16>&);

}  // namespace rodimus
