// Forward in two parallel passes. First, per (sequence, chunk), the operands that all value columns
// share: [decayed q | scores], decayed k, decays. Then, per (sequence, group of value columns), the
// walk through the chunks:
//   o = [q | scores] [S; v],   S = diag(decay) S + k^T v.
// Scratch: 3 * 64 * K + 64 * 64 floats per chunk, and 40 KiB per block of columns and thread.
#include <cmath>

#include "kernels/cpu/ddts_chunk.h"
#include "kernels/cpu/parallel.h"

namespace rodimus {
namespace {

using namespace cpu;
using namespace cpu::ddts;
using micro::ALayout;

// Where one chunk's operands lie in the scratch of all chunks.
struct Operands {
  Operands(float* scratch, int64_t index, int64_t Kp) {
    read = scratch + index * floats(Kp);
    write = read + kChunk * ld_read(Kp);
    decay = write + kChunk * Kp;
  }
  static int64_t ld_read(int64_t Kp) { return Kp + kChunk; }
  static int64_t floats(int64_t Kp) { return kChunk * ld_read(Kp) + kChunk * Kp + Kp; }

  float* read;   // (kChunk, Kp + kChunk): queries seen from the chunk's entry | scores
  float* write;  // (kChunk, Kp): keys seen from its exit
  float* decay;  // (Kp)
};

// Workspace of one block of columns, and of the blocks that a task walks through.
int64_t block_floats_of(int64_t Kp) { return (Kp + kChunk) * kLd; }
int64_t walk_floats(int64_t Kp, int64_t blocks) {
  return blocks * block_floats_of(Kp) + kChunk * kLd;
}

template <class T>
struct Forward {
  T* o;
  float* state_out;
  const T* v;
  const float* state_in;
  DdtsDims dims;
  Tiling tiling;
  float* operands;

  // One chunk for one block of columns. sv (Kp + kChunk, kLd) holds the state in its first Kp rows.
  void step(float* sv, const Operands& chunk, float* temporary, int64_t b, int64_t t0,
            int64_t column) const {
    const int64_t Kp = tiling.Kp, V = dims.V;
    const int64_t length = std::min(kChunk, dims.T - t0), width = std::min(kBlock, V - column);
    const int64_t ld_read = Operands::ld_read(Kp);
    float* v_block = sv + Kp * kLd;
    const int64_t at = (b * dims.T + t0) * V + column;
    load_block(v_block, kLd, v + at, V, length, width, length);
    const auto causal = [Kp](int64_t row, int64_t rows) {
      return micro::Range{0, Kp + row + rows};
    };
    const bool direct = std::is_same_v<T, float> && width % micro::kTileCols == 0;
    float* out = temporary;
    int64_t ld_out = kLd;
    if constexpr (std::is_same_v<T, float>) {
      if (direct) out = o + at, ld_out = V;
    }
    micro::product<ALayout::kRows>(out, ld_out, chunk.read, ld_read, sv, kLd, length, width, causal,
                                   micro::Zero{});
    if (!direct) store_rows(o + at, V, temporary, kLd, length, width);
    micro::product<ALayout::kColumns>(sv, kLd, chunk.write, Kp, v_block, kLd, Kp, width, length,
                                      micro::ScaleRows{chunk.decay, sv, kLd});
  }

  int64_t block_floats() const { return block_floats_of(tiling.Kp); }

  // Takes blocks [first, last) of sequence b through all chunks. workspace: walk_floats(Kp, last -
  // first).
  void walk(int64_t b, int64_t first, int64_t last, float* workspace) const {
    const int64_t Kp = tiling.Kp, K = dims.K, V = dims.V;
    float *blocks = workspace, *temporary = blocks + (last - first) * block_floats();
    for (int64_t block = first; block < last; ++block) {
      float* sv = blocks + (block - first) * block_floats();
      const int64_t column = block * kBlock, at = b * K * V + column;
      load_block(sv, kLd, state_in == nullptr ? nullptr : state_in + at, V,
                 state_in == nullptr ? 0 : K, std::min(kBlock, V - column), Kp);
    }
    for (int64_t chunk = 0; chunk < tiling.chunks; ++chunk) {
      const Operands at_chunk(operands, b * tiling.chunks + chunk, Kp);
      for (int64_t block = first; block < last; ++block)
        step(blocks + (block - first) * block_floats(), at_chunk, temporary, b, chunk * kChunk,
             block * kBlock);
    }
    if (state_out == nullptr) return;
    for (int64_t block = first; block < last; ++block) {
      const int64_t column = block * kBlock;
      store_rows(state_out + b * K * V + column, V, blocks + (block - first) * block_floats(), kLd,
                 K, std::min(kBlock, V - column));
    }
  }
};

// One token: the plain recurrence. Each task takes consecutive rows of the state, because hardware
// prefetches them only in that order, and sums their part of o; the parts do not depend on the
// number of threads.
constexpr int64_t kTokenParts = 8;
template <class T>
void forward_token(const Cpu& exec, const DdtsForwardArgs<T>& args) {
  const auto [B, T1, K, V] = args.dims;
  const float scale = 1.0f / std::sqrt(static_cast<float>(K));
  const int64_t parts = std::min(kTokenParts, K);
  const memory::Scratch<float> sums(B * parts * V);
  const auto add_rows = [=, B = B, K = K, V = V](float* sum, int64_t b, int64_t first,
                                                 int64_t last) {
    std::fill_n(sum, V, 0.0f);
    for (int64_t row = b * K + first; row < b * K + last; ++row) {
      const float key = to_f32(args.k[row]), query = to_f32(args.q[row]) * scale;
      const simd::Vec kept = simd::exp(simd::broadcast(args.g[row]));
      const float* before = args.state_in == nullptr ? nullptr : args.state_in + row * V;
      float* after = args.state_out == nullptr ? nullptr : args.state_out + row * V;
      simd::for_lanes(V, [=, values = args.v + b * V](int64_t j, auto lanes) {
        simd::Vec s = key * simd::load(values + j, lanes);
        if (before != nullptr) s = simd::multiply_add(kept, simd::load(before + j, lanes), s);
        if (after != nullptr) simd::store(after + j, s, lanes);
        const simd::Vec total = simd::load(sum + j, lanes);
        simd::store(sum + j, simd::multiply_add(simd::broadcast(query), s, total), lanes);
      });
    }
  };
  parallel_rows(exec, B * parts, K * V / parts, [&, K = K, V = V](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task % parts;
      add_rows(sums.data() + task * V, task / parts, K * part / parts, K * (part + 1) / parts);
    }
  });
  parallel_rows(exec, B, parts * V, [&, V = V](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      simd::for_lanes(V, [&](int64_t j, auto lanes) {
        simd::Vec total{};
        for (int64_t part = 0; part < parts; ++part)
          total += simd::load(sums.data() + (b * parts + part) * V + j, lanes);
        simd::store(args.o + b * V + j, total, lanes);
      });
    }
  });
}

}  // namespace

template <class T>
void ddts_forward(Cpu& exec, const DdtsForwardArgs<T>& args) {
  const DdtsDims& dims = args.dims;
  CHECK(dims.B >= 1 && dims.T >= 1 && dims.K >= 1 && dims.V >= 1, "ddts: B = ", dims.B,
        ", T = ", dims.T, ", K = ", dims.K, ", V = ", dims.V, "; every size must be at least 1");
  if (dims.T == 1) {
    forward_token(exec, args);
    return;
  }
  const Tiling tiling(dims);
  const int64_t Kp = tiling.Kp, chunks = dims.B * tiling.chunks;
  const memory::Scratch<float> operands(chunks * Operands::floats(Kp));
  const PerThread<float> chunk_workspace(exec, ChunkFactors::floats(Kp) + scores_floats(Kp));
  parallel_tasks(exec, chunks, [&](int64_t index) {
    const auto in = chunk_inputs(args.q, args.k, args.g, args.starts, dims, index / tiling.chunks,
                                 index % tiling.chunks);
    const Operands out(operands.data(), index, Kp);
    float* workspace = chunk_workspace.mine();
    ChunkFactors factors(Kp, workspace);
    load_factors(factors, in);
    queries_from_entry(out.read, Operands::ld_read(Kp), factors);
    scores(out.read + Kp, Operands::ld_read(Kp), factors, in.length,
           workspace + ChunkFactors::floats(Kp));
    keys_to_exit(out.write, Kp, factors);
    std::copy_n(factors.chunk_decay, Kp, out.decay);
  });
  const Forward<T> forward{.o = args.o,
                           .state_out = args.state_out,
                           .v = args.v,
                           .state_in = args.state_in,
                           .dims = dims,
                           .tiling = tiling,
                           .operands = operands.data()};
  const int64_t per_task = blocks_per_task(exec, dims.B, tiling.blocks);
  const int64_t groups = (tiling.blocks + per_task - 1) / per_task;
  const PerThread<float> walk_workspace(exec, walk_floats(Kp, per_task));
  parallel_tasks(exec, dims.B * groups, [&](int64_t task) {
    const int64_t first = task % groups * per_task;
    forward.walk(task / groups, first, std::min(first + per_task, tiling.blocks),
                 walk_workspace.mine());
  });
}

ScratchBytes ddts_forward_scratch(const Cpu& exec, DType, DdtsDims dims) {
  constexpr int64_t kFloat = sizeof(float);
  if (dims.T == 1) return {dims.B * std::min(kTokenParts, dims.K) * dims.V * kFloat};
  const Tiling tiling(dims);
  const int64_t Kp = tiling.Kp, per_task = blocks_per_task(exec, dims.B, tiling.blocks);
  return {dims.B * tiling.chunks * Operands::floats(Kp) * kFloat,
          PerThread<float>::bytes(exec, ChunkFactors::floats(Kp) + scores_floats(Kp)),
          PerThread<float>::bytes(exec, walk_floats(Kp, per_task))};
}

template void ddts_forward(Cpu&, const DdtsForwardArgs<float>&);
template void ddts_forward(Cpu&, const DdtsForwardArgs<bf16>&);

}  // namespace rodimus
