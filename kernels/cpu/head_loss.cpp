// Head and loss over blocks of rows: a block's logits are computed, reduced, turned into their
// gradient (in place in f32) and consumed by the two gradient products while they are in the
// last-level cache. Workspace: one block of logits, and in bf16 one of gradients.
#include "kernels/head_loss_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/bad_input.h"
#include "kernels/cpu/exp2.h"
#include "kernels/cpu/parallel.h"
#include "kernels/memory.h"

namespace rodimus {

using namespace cpu;
namespace {

using simd::kLanes;
using simd::Vec;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// sum(exp(z)) = sum * exp(largest).
struct LogSum {
  float largest, sum;
};

// Online, over pieces that stay in L1, so that z is read from memory only once.
LogSum log_sum(const float* z, int64_t n) {
  constexpr int64_t kPiece = 2048;
  float largest = kMinusInfinity;
  Vec sum{};
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const float* piece = z + begin;
    const int64_t count = std::min(kPiece, n - begin), whole = count / kLanes * kLanes;
    Vec top = simd::broadcast(largest);
    for (int64_t j = 0; j < whole; j += kLanes) top = simd::max(simd::load(piece + j), top);
    float piece_largest = simd::reduce_max(top);
    for (int64_t j = whole; j < count; ++j) piece_largest = std::max(piece_largest, piece[j]);
    // If everything so far is -inf, weights are zero rather than exp(-inf + inf).
    const float shift = piece_largest == kMinusInfinity ? 0.0f : piece_largest;
    sum *= cpu::exp2(simd::broadcast((largest - shift) * simd::kLog2e));
    largest = piece_largest;
    for (int64_t j = 0; j < whole; j += kLanes)
      sum += cpu::exp2((simd::load(piece + j) - shift) * simd::kLog2e);
    if (whole < count) {
      Vec rest = simd::broadcast(kMinusInfinity);
      std::memcpy(&rest, piece + whole, static_cast<size_t>(count - whole) * sizeof(float));
      sum += cpu::exp2((rest - shift) * simd::kLog2e);
    }
  }
  return {largest, simd::reduce_add(sum)};
}

void check_targets(const int32_t* targets, int64_t rows, int64_t vocab) {
  for (int64_t r = 0; r < rows; ++r)
    if (targets[r] != kIgnoreTarget && (targets[r] < 0 || targets[r] >= vocab))
      fail_target(targets[r], r, vocab);
}

// cross_entropy with rows of z and dz `ld` elements apart. dz may be z.
template <class T>
void cross_entropy_rows(const Cpu& exec, float* losses, T* dz, const float* z, int64_t ld,
                        const int32_t* targets, float scale, int64_t rows, int64_t vocab) {
  parallel_rows(exec, rows, vocab, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* logits = z + r * ld;
      const int32_t target = targets[r];
      if (target == kIgnoreTarget) {
        losses[r] = 0;
        if (dz != nullptr) std::fill_n(dz + r * ld, vocab, T(0.0f));
        continue;
      }
      const LogSum all = log_sum(logits, vocab);
      losses[r] = (all.largest - logits[target]) + std::log(all.sum);
      if (dz == nullptr) continue;
      const float factor = scale / all.sum;
      const float shift = all.largest;
      const float hit =
          factor * cpu::exp2(simd::broadcast((logits[target] - shift) * simd::kLog2e))[0] - scale;
      simd::for_lanes(vocab, [&](int64_t j, auto lanes) {
        const Vec weight = cpu::exp2((simd::load(logits + j, lanes) - shift) * simd::kLog2e);
        simd::store(dz + r * ld + j, factor * weight, lanes);
      });
      dz[r * ld + target] = T(hit);
    }
  });
}

// dx and dw null: losses only.
template <class T>
void run(Cpu& exec, const HeadLossBackwardArgs<T>& args) {
  check_head_loss(args.dims);
  check_targets(args.targets, args.dims.rows, args.dims.vocab);
  head_loss_blocks(exec, args, [&](int64_t first, int64_t rows, T* dz, const float* z, int64_t ld) {
    cross_entropy_rows(exec, args.losses + first, dz, z, ld, args.targets + first, args.scale, rows,
                       args.dims.vocab);
  });
}

}  // namespace

ScratchBytes head_loss_scratch(const Cpu& exec, Direction direction, DType type,
                               HeadLossDims dims) {
  return head_loss_blocks_scratch(exec, direction, type, dims);
}

template <class T>
void head_loss_forward(Cpu& exec, const HeadLossForwardArgs<T>& args) {
  run<T>(exec, {.dims = args.dims,
                .x = args.x,
                .w = args.w,
                .targets = args.targets,
                .scale = 0,
                .losses = args.losses,
                .dx = nullptr,
                .dw = nullptr});
}

template <class T>
void head_loss_forward_backward(Cpu& exec, const HeadLossBackwardArgs<T>& args) {
  run(exec, args);
}

template <class T>
void cross_entropy(Cpu& exec, float* losses, T* dz, const float* z, const int32_t* targets,
                   float scale, int64_t rows, int64_t vocab) {
  check_targets(targets, rows, vocab);
  cross_entropy_rows(exec, losses, dz, z, vocab, targets, scale, rows, vocab);
}

template void head_loss_forward(Cpu&, const HeadLossForwardArgs<float>&);
template void head_loss_forward(Cpu&, const HeadLossForwardArgs<bf16>&);
template void head_loss_forward_backward(Cpu&, const HeadLossBackwardArgs<float>&);
template void head_loss_forward_backward(Cpu&, const HeadLossBackwardArgs<bf16>&);
template void cross_entropy(Cpu&, float*, float*, const float*, const int32_t*, float, int64_t,
                            int64_t);
template void cross_entropy(Cpu&, float*, bf16*, const float*, const int32_t*, float, int64_t,
                            int64_t);

}  // namespace rodimus
