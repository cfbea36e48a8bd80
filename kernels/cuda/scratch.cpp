// What the CUDA kernels take from the pool, stated without them: every build plans for GPUs. The
// sizes follow from the constants of the kernels (beside each), and the tests hold both together.
#include <algorithm>
#include <bit>

#include "kernels/cuda/row_sums.h"
#include "kernels/ddts.h"
#include "kernels/ddts_gates.h"
#include "kernels/embedding.h"
#include "kernels/gate.h"
#include "kernels/gated_norm.h"
#include "kernels/gemm.h"
#include "kernels/head_loss.h"
#include "kernels/head_loss_blocks.h"
#include "kernels/norm.h"
#include "kernels/rotary.h"
#include "kernels/short_conv.h"
#include "kernels/ska.h"

namespace rodimus {
namespace {

constexpr int64_t kFloat = sizeof(float);

int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Chunks of 64 tokens, slices of 64 keys, sub-chunks of 16: ddts_tiles.cuh, ddts_chunk.cuh.
struct DdtsSizes {
  explicit DdtsSizes(DdtsDims dims)
      : chunks(pieces(dims.T, 64)), pairs(pieces(chunks, 2)), slices(dims.K <= 64 ? 1 : 2) {}
  int64_t record_bytes(DType type) const {  // read, write and scores in T, decay in f32
    const int64_t elements = 2 * slices * 64 * 64 + 10 * 16 * 16;
    return elements * static_cast<int64_t>(size_of(type)) + slices * 64 * kFloat;
  }
  int64_t chunks, pairs, slices;
};

}  // namespace

ScratchBytes ddts_forward_scratch(const Cuda&, DType type, DdtsDims dims) {
  if (dims.T == 1) return {};
  const DdtsSizes sizes(dims);
  return {dims.B * sizes.chunks * sizes.record_bytes(type)};
}

ScratchBytes ddts_backward_scratch(const Cuda&, DType type, DdtsDims dims) {
  const DdtsSizes sizes(dims);
  // Images of 32 columns and 64 keys, CheckpointLayout in ddts_walk.cuh.
  const int64_t borders = dims.B * sizes.pairs * pieces(dims.V, 32) * sizes.slices * 32 * 64 *
                          static_cast<int64_t>(size_of(type));
  return {dims.B * sizes.chunks * sizes.record_bytes(type), borders, borders};
}

ScratchBytes ddts_gates_scratch(const Cuda&, Direction direction, DdtsGatesDims dims) {
  if (direction == Direction::forward || dims.rows == 0) return {};
  // Rows of packs of 4 where they fit, a row for each group of up to a warp of 256 threads.
  const int64_t packs = dims.m % 4 == 0 ? dims.m / 4 : dims.m;
  const auto lanes =
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::clamp<int64_t>(packs, 1, 32))));
  return {cuda::row_blocks(dims.rows / (256 / lanes)) * 2 * dims.m * kFloat};
}

ScratchBytes gated_norm_scratch(const Cuda&, Direction direction, GatedNormDims dims) {
  if (direction == Direction::forward || dims.rows == 0) return {};
  return {cuda::row_blocks(dims.rows) * 2 * dims.dim * kFloat};
}

ScratchBytes residual_norm_scratch(const Cuda&, int64_t rows, int64_t dim) {
  if (rows == 0) return {};
  return {cuda::row_blocks(rows) * dim * kFloat};
}

ScratchBytes sigmoid_gate_scratch(const Cuda&, int64_t rows, int64_t dim) {
  if (rows == 0) return {};
  return {cuda::row_blocks(rows) * dim * kFloat};
}

ScratchBytes short_conv_scratch(const Cuda&, Direction direction, ShortConvDims dims) {
  if (direction == Direction::forward || dims.B * dims.T * dims.D == 0) return {};
  // Grid in short_conv.cu: 128 threads, each with a pack of 4 channels at the authors' width.
  const int64_t pack = dims.width <= 4 && dims.D % 4 == 0 ? 4 : 1;
  const int64_t columns = pieces(dims.D, 128 * pack);
  const int64_t chunk = std::clamp<int64_t>(dims.B * dims.T * columns / 1024 / 32 * 32, 32, 256);
  return {dims.B * pieces(dims.T, chunk) * (dims.D * dims.width + dims.D) * kFloat};
}

ScratchBytes rotary_scratch(const Cuda&, RotaryDims) { return {}; }

ScratchBytes ska_forward_scratch(const Cuda&, SkaDims) { return {}; }

ScratchBytes ska_backward_scratch(const Cuda&, SkaDims dims) {
  return {dims.B * dims.H * dims.T * kFloat};
}

ScratchBytes embedding_scratch(const Cuda&, int64_t rows, int64_t dim, int64_t vocab) {
  if (rows == 0 || dim == 0) return {};
  // The rows in order of their ids, and where each range of 64 ids begins.
  const auto ranges = static_cast<int64_t>(
      std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(pieces(vocab, 64), 1))));
  return {rows * int64_t{sizeof(int64_t)}, (ranges + 1) * int64_t{sizeof(int64_t)}};
}

ScratchBytes gemm_scratch(const Cuda&, DType, DType, GemmDims) { return {}; }

ScratchBytes head_loss_scratch(const Cuda& gpu, Direction direction, DType type,
                               HeadLossDims dims) {
  return head_loss_blocks_scratch(gpu, direction, type, dims);
}

}  // namespace rodimus
