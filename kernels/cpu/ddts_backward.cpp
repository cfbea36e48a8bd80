// Backward in three parallel passes.
//   1. per (sequence, chunk): decayed q and k, decays;
//   2. per (sequence, group of value columns), two walks through time that keep the state before
//      each chunk and, in reverse, the gradient of the state after it:
//        S = diag(decay) S + k^T v,   dS = diag(decay) dS + q^T d_o;
//   3. per (sequence, chunk), over all value columns in order: given both border states, a chunk
//   needs no other chunk, so no sum crosses threads:
//        dv = [scores^T | k] [d_o; dS],  dscores = d_o v^T,  dq = d_o S^T,  dk = v dS^T,
//      then the gradients inside the chunk (backward_within).
// Scratch: 2 K V floats per chunk for the border states, which at K = 64 is twice the size of v in
// f32; 2 * 64 * K floats per chunk for the operands; 250 KiB per thread at K = 64.
#include <cmath>

#include "kernels/cpu/ddts_chunk.h"
#include "kernels/cpu/parallel.h"

namespace rodimus {
namespace {

using namespace cpu;
using namespace cpu::ddts;
using micro::ALayout;
using micro::kTileCols;

// Where one chunk's operands lie in the scratch of all chunks.
struct Operands {
  Operands(float* scratch, int64_t index, int64_t Kp) {
    read = scratch + index * floats(Kp);
    write = read + kChunk * Kp;
    decay = write + kChunk * Kp;
  }
  static int64_t floats(int64_t Kp) { return 2 * kChunk * Kp + Kp; }

  float* read;   // (kChunk, Kp): queries seen from the chunk's entry
  float* write;  // (kChunk, Kp): keys seen from its exit
  float* decay;  // (Kp)
};

// Border states of all chunks: (B, chunks, blocks, Kp, kBlock).
struct Borders {
  Borders(const Tiling& tiling_, int64_t B) : tiling(tiling_), storage(floats(tiling_, B)) {}
  static int64_t floats(const Tiling& tiling, int64_t B) {
    return B * tiling.chunks * tiling.blocks * tiling.Kp * kBlock;
  }
  float* at(int64_t b, int64_t chunk, int64_t block) const {
    return storage.data() +
           ((b * tiling.chunks + chunk) * tiling.blocks + block) * tiling.Kp * kBlock;
  }
  Tiling tiling;
  memory::Scratch<float> storage;
};

int64_t walk_floats(int64_t Kp) { return kChunk * kLd + Kp * kBlock; }  // per thread

template <class T>
struct Walks {
  const T *v, *d_o;
  const float *state_in, *dstate_out;
  float* dstate_in;
  DdtsDims dims;
  Tiling tiling;
  const float* operands;
  const Borders &states, &dstates;

  Operands operands_of(int64_t b, int64_t chunk) const {
    return {const_cast<float*>(operands), b * tiling.chunks + chunk, tiling.Kp};
  }
  int64_t width(int64_t block) const { return std::min(kBlock, dims.V - block * kBlock); }

  // Loads one block of a caller's state (K,V), or zeros.
  void load_state(float* dst, const float* state, int64_t b, int64_t block) const {
    const bool zero = state == nullptr;
    load_block(dst, kBlock, zero ? nullptr : state + b * dims.K * dims.V + block * kBlock, dims.V,
               zero ? 0 : dims.K, width(block), tiling.Kp);
  }

  // to = diag(decay) from + a^T x, x the chunk's rows of v or d_o.
  void step(float* to, const float* from, const float* a, const float* decay, float* x,
            const T* rows, int64_t b, int64_t chunk, int64_t block) const {
    const int64_t t0 = chunk * kChunk, length = std::min(kChunk, dims.T - t0);
    load_block(x, kLd, rows + (b * dims.T + t0) * dims.V + block * kBlock, dims.V, length,
               width(block), length);
    micro::product<ALayout::kColumns>(to, kBlock, a, tiling.Kp, x, kLd, tiling.Kp, kBlock, length,
                                      micro::ScaleRows{decay, from, kBlock});
  }

  void forward(int64_t b, int64_t first, int64_t last, float* x) const {
    for (int64_t block = first; block < last; ++block)
      load_state(states.at(b, 0, block), state_in, b, block);
    for (int64_t chunk = 0; chunk + 1 < tiling.chunks; ++chunk) {
      const Operands in = operands_of(b, chunk);
      for (int64_t block = first; block < last; ++block)
        step(states.at(b, chunk + 1, block), states.at(b, chunk, block), in.write, in.decay, x, v,
             b, chunk, block);
    }
  }

  void reverse(int64_t b, int64_t first, int64_t last, float* x) const {
    float* entry = x + kChunk * kLd;
    for (int64_t block = first; block < last; ++block)
      load_state(dstates.at(b, tiling.chunks - 1, block), dstate_out, b, block);
    for (int64_t chunk = tiling.chunks - 1; chunk > 0; --chunk) {
      const Operands in = operands_of(b, chunk);
      for (int64_t block = first; block < last; ++block)
        step(dstates.at(b, chunk - 1, block), dstates.at(b, chunk, block), in.read, in.decay, x,
             d_o, b, chunk, block);
    }
    if (dstate_in == nullptr) return;
    const Operands in = operands_of(b, 0);
    for (int64_t block = first; block < last; ++block) {
      step(entry, dstates.at(b, 0, block), in.read, in.decay, x, d_o, b, 0, block);
      store_rows(dstate_in + b * dims.K * dims.V + block * kBlock, dims.V, entry, kBlock, dims.K,
                 width(block));
    }
  }
};

// Pass 3 for one chunk: products with the value columns, block by block.
class ChunkGradients {
 public:
  // In `storage` of floats(padded), uninitialised.
  ChunkGradients(int64_t padded, float* storage) : Kp(padded), factors(padded, storage) {
    float* next = storage + ChunkFactors::floats(padded);
    const auto take = [&next](int64_t floats) {
      float* array = next;
      next += floats;
      return array;
    };
    grads = take((kChunk + Kp) * kLd);
    values = take(kChunk * kLd);
    values_t = take(kChunk * kLd);
    d_o_t = take(kChunk * kLd);
    da_t = take(kChunk * kLd);
    transfer = take(kChunk * (kChunk + Kp));
    temporary = take(kChunk * (kChunk + Kp));
    dq_t = take(Kp * kLd);
    dk_t = take(Kp * kLd);
    dq = take(kChunk * Kp);
    dk = take(kChunk * Kp);
    dg = take(kChunk * Kp);
    state_dot = take(Kp);
    across = take(kSubs * Kp);
    scores_workspace = take(scores_floats(Kp));
  }
  static int64_t floats(int64_t padded) {
    return ChunkFactors::floats(padded) + (kChunk + padded) * kLd + 4 * kChunk * kLd +
           2 * kChunk * (kChunk + padded) + 2 * padded * kLd + (3 * kChunk + 1 + kSubs) * padded +
           scores_floats(padded);
  }

  template <class T>
  void load(const ChunkInputs<T>& in) {
    length = in.length;
    rows = round_up(length, kSub);
    load_factors(factors, in);
    scores(temporary, kChunk, factors, length, scores_workspace);
    micro::transpose(transfer, ld_transfer(), temporary, kChunk, rows, rows);
    keys_to_exit(temporary, Kp, factors);
    for (int64_t j = 0; j < rows; ++j)
      std::copy_n(temporary + j * Kp, Kp, transfer + j * ld_transfer() + rows);
    std::fill_n(da_t, kChunk * kLd, 0.0f);
    std::fill_n(dq_t, Kp * kLd, 0.0f);
    std::fill_n(dk_t, Kp * kLd, 0.0f);
    std::fill_n(state_dot, Kp, 0.0f);
  }

  // One block of `width` columns; v, d_o, dv at (first token, first column), rows V apart; border
  // states (Kp, kBlock).
  template <class T>
  void add_block(T* dv, const T* v, const T* d_o, int64_t V, int64_t width, const float* state,
                 const float* dstate) {
    load_block(grads, kLd, d_o, V, length, width, rows);
    for (int64_t c = 0; c < Kp; ++c)
      std::copy_n(dstate + c * kBlock, kBlock, grads + (rows + c) * kLd);
    load_block(values, kLd, v, V, length, width, rows);
    micro::transpose(d_o_t, kLd, grads, kLd, rows, kBlock);
    micro::transpose(values_t, kLd, values, kLd, rows, kBlock);

    const int64_t end = rows + Kp;
    const auto causal = [end](int64_t row, int64_t) { return micro::Range{row, end}; };
    const bool direct = std::is_same_v<T, float> && width % kTileCols == 0;
    float* out = temporary;
    int64_t ld_out = kBlock;
    if constexpr (std::is_same_v<T, float>) {
      if (direct) out = dv, ld_out = V;
    }
    micro::product<ALayout::kRows>(out, ld_out, transfer, ld_transfer(), grads, kLd, length, width,
                                   causal, micro::Zero{});
    if (!direct) store_rows(dv, V, temporary, kBlock, length, width);

    // Columns are tokens i; only rows j <= i matter.
    for (int64_t i = 0; i < rows; i += kTileCols)
      micro::product<ALayout::kRows>(da_t + i, kLd, values, kLd, d_o_t + i, kLd,
                                     std::min<int64_t>(rows, i + kTileCols), kTileCols, kBlock,
                                     micro::Keep{});
    micro::product<ALayout::kRows>(dq_t, kLd, state, kBlock, d_o_t, kLd, Kp, rows, kBlock,
                                   micro::Keep{});
    micro::product<ALayout::kRows>(dk_t, kLd, dstate, kBlock, values_t, kLd, Kp, rows, kBlock,
                                   micro::Keep{});
    for (int64_t c = 0; c < Kp; ++c) {
      simd::Vec sum{};
      for (int64_t j = 0; j < kBlock; j += simd::kLanes)
        sum += simd::load(state + c * kBlock + j) * simd::load(dstate + c * kBlock + j);
      state_dot[c] += simd::reduce_add(sum);
    }
  }

  // dq, dk, dg_out at the first token, rows K apart.
  template <class T>
  void store(T* dq_out, T* dk_out, float* dg_out, int64_t K) {
    micro::transpose(dq, Kp, dq_t, kLd, Kp, kChunk);
    micro::transpose(dk, Kp, dk_t, kLd, Kp, kChunk);
    backward_within(dq, dk, dg, da_t, state_dot, factors, length, across);
    const float scale = 1.0f / std::sqrt(static_cast<float>(K));
    for (int64_t i = 0; i < length * Kp; i += simd::kLanes)
      simd::store(dq + i, simd::load(dq + i) * scale);
    store_rows(dq_out, K, dq, Kp, length, K);
    store_rows(dk_out, K, dk, Kp, length, K);
    store_rows(dg_out, K, dg, Kp, length, K);
  }

 private:
  int64_t ld_transfer() const { return rows + Kp; }

  const int64_t Kp;
  ChunkFactors factors;
  int64_t length = 0, rows = 0;      // tokens; the same rounded up to whole sub-chunks
  float* grads;                      // (rows + Kp, kLd): d_o, then the exit state's gradient
  float *values, *values_t, *d_o_t;  // (kChunk, kLd): v, v^T, d_o^T
  float* transfer;                   // (rows, rows + Kp): scores^T | keys seen from the exit
  float* temporary;                  // (kChunk, kChunk + Kp)
  float* da_t;                       // (kChunk, kLd): gradient of scores^T
  float *dq_t, *dk_t;                // (Kp, kLd): gradients of decayed q and k, transposed
  float *dq, *dk, *dg;               // (kChunk, Kp)
  float* state_dot;                  // (Kp)
  float *across, *scores_workspace;  // workspaces of backward_within and scores
};

}  // namespace

template <class T>
void ddts_backward(Cpu& exec, const DdtsBackwardArgs<T>& args) {
  const DdtsDims& dims = args.dims;
  CHECK(dims.B >= 1 && dims.T >= 1 && dims.K >= 1 && dims.V >= 1, "ddts: B = ", dims.B,
        ", T = ", dims.T, ", K = ", dims.K, ", V = ", dims.V, "; every size must be at least 1");
  const Tiling tiling(dims);
  const int64_t Kp = tiling.Kp, chunks = dims.B * tiling.chunks;
  const memory::Scratch<float> operands(chunks * Operands::floats(Kp));
  const PerThread<float> chunk_workspace(exec, ChunkGradients::floats(Kp));
  parallel_tasks(exec, chunks, [&](int64_t index) {
    ChunkFactors factors(Kp, chunk_workspace.mine());
    load_factors(factors, chunk_inputs(args.q, args.k, args.g, args.starts, dims,
                                       index / tiling.chunks, index % tiling.chunks));
    const Operands out(operands.data(), index, Kp);
    queries_from_entry(out.read, Kp, factors);
    keys_to_exit(out.write, Kp, factors);
    std::copy_n(factors.chunk_decay, Kp, out.decay);
  });

  const Borders states(tiling, dims.B), dstates(tiling, dims.B);
  const Walks<T> walks{.v = args.v,
                       .d_o = args.d_o,
                       .state_in = args.state_in,
                       .dstate_out = args.dstate_out,
                       .dstate_in = args.dstate_in,
                       .dims = dims,
                       .tiling = tiling,
                       .operands = operands.data(),
                       .states = states,
                       .dstates = dstates};
  const int64_t per_task = blocks_per_task(exec, 2 * dims.B, tiling.blocks);
  const int64_t groups = (tiling.blocks + per_task - 1) / per_task;
  const PerThread<float> walk_workspace(exec, walk_floats(Kp));
  parallel_tasks(exec, 2 * dims.B * groups, [&](int64_t task) {
    const int64_t b = task / (2 * groups), first = task / 2 % groups * per_task;
    const int64_t last = std::min(first + per_task, tiling.blocks);
    if (task % 2 == 0) {
      walks.forward(b, first, last, walk_workspace.mine());
    } else {
      walks.reverse(b, first, last, walk_workspace.mine());
    }
  });

  parallel_tasks(exec, chunks, [&](int64_t index) {
    const int64_t b = index / tiling.chunks, chunk = index % tiling.chunks;
    const int64_t row = b * dims.T + chunk * kChunk;
    ChunkGradients gradients(Kp, chunk_workspace.mine());
    gradients.load(chunk_inputs(args.q, args.k, args.g, args.starts, dims, b, chunk));
    for (int64_t block = 0; block < tiling.blocks; ++block) {
      const int64_t column = block * kBlock, at = row * dims.V + column;
      gradients.add_block(args.dv + at, args.v + at, args.d_o + at, dims.V,
                          std::min(kBlock, dims.V - column), states.at(b, chunk, block),
                          dstates.at(b, chunk, block));
    }
    gradients.store(args.dq + row * dims.K, args.dk + row * dims.K, args.dg + row * dims.K, dims.K);
  });
}

ScratchBytes ddts_backward_scratch(const Cpu& exec, DType, DdtsDims dims) {
  constexpr int64_t kFloat = sizeof(float);
  const Tiling tiling(dims);
  const int64_t Kp = tiling.Kp, chunks = dims.B * tiling.chunks;
  const int64_t borders = Borders::floats(tiling, dims.B) * kFloat;
  return {chunks * Operands::floats(Kp) * kFloat,
          PerThread<float>::bytes(exec, ChunkGradients::floats(Kp)), borders, borders,
          PerThread<float>::bytes(exec, walk_floats(Kp))};
}

template void ddts_backward(Cpu&, const DdtsBackwardArgs<float>&);
template void ddts_backward(Cpu&, const DdtsBackwardArgs<bf16>&);

}  // namespace rodimus
