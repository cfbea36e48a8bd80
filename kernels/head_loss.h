// Language-model head and cross-entropy, fused over blocks of rows: the (rows, vocab) logits never
// exist.
#pragma once

#include <algorithm>

#include "kernels/exec.h"

namespace rodimus {

inline constexpr int32_t kIgnoreTarget = -100;

struct HeadLossDims {
  int64_t rows, dim, vocab;
};

// The block of rows whose logits exist at once: `rows` of the dims.rows, in f32 with row stride
// `ld`. In bf16, their gradients are a second block of bf16; in f32, they overwrite the logits.
struct HeadLossBlock {
  int64_t rows, ld;
  int64_t elements() const { return rows * ld; }
};

// Takes dims.rows >= 0 and dims.vocab >= 1. Each block's product reads and writes all of dw (on the
// CPU also reads all of w), a cost to be shared by many rows.
inline HeadLossBlock head_loss_block(Device device, const HeadLossDims& dims) {
  const auto rows_in = [&](int64_t bytes, int64_t multiple, int64_t fewest, int64_t most) {
    const int64_t fitting = bytes / (dims.vocab * static_cast<int64_t>(sizeof(float)));
    return std::min(dims.rows, std::clamp(fitting / multiple * multiple, fewest, most));
  };
  // dw costs 8 bytes an element for 2 x rows FLOP, so an H100 (300 FLOP a byte) wants 1200 rows or
  // more; beyond that only memory use grows. Rows start at whole cache lines.
  if (device == Device::cuda)
    return {rows_in(int64_t{512} << 20, 128, 128, 2048), (dims.vocab + 63) / 64 * 64};
  // Logits should still fit the last-level cache. Rows a power of two apart would compete for the
  // same cache sets in dw's product.
  return {rows_in(int64_t{16} << 20, 64, 128, 1024), (dims.vocab + 15) / 16 * 16 + 16};
}

// z = x w^T;  losses[r] = logsumexp(z[r]) - z[r, targets[r]], and 0 where targets[r] is
// kIgnoreTarget. z in f32.
template <class T>
struct HeadLossForwardArgs {
  HeadLossDims dims;
  const T* x;              // (rows, dim)
  const T* w;              // (vocab, dim)
  const int32_t* targets;  // (rows)

  float* losses;  // (rows), natural log
};

// Throws Error naming the first target outside [0, vocab).
template <class T>
void head_loss_forward(Cpu&, const HeadLossForwardArgs<T>& args);
template <class T>
void head_loss_forward(Cuda&, const HeadLossForwardArgs<T>& args);

// The same losses, plus the gradients of scale * sum(losses) from the same logits:
//   dz = scale * (softmax(z) - onehot(target)), rounded to T;  dx = dz w;  dw += dz^T x, block
//   after block.
template <class T>
struct HeadLossBackwardArgs {
  HeadLossDims dims;
  const T *x, *w;
  const int32_t* targets;
  float scale;

  float* losses;  // (rows)
  T* dx;          // (rows, dim), overwritten
  float* dw;      // (vocab, dim), accumulated
};

// Fused with forward so that the logits are computed once, not twice: the loss is the root of every
// tape, so its upstream gradient is known in advance.
template <class T>
void head_loss_forward_backward(Cpu&, const HeadLossBackwardArgs<T>& args);
template <class T>
void head_loss_forward_backward(Cuda&, const HeadLossBackwardArgs<T>& args);

// The logits of a block of rows, in bf16 also their gradients, and the scratch of a product.
// Direction::forward means without gradients.
ScratchBytes head_loss_scratch(const Cpu&, Direction direction, DType type, HeadLossDims dims);
ScratchBytes head_loss_scratch(const Cuda&, Direction direction, DType type, HeadLossDims dims);

// Cross-entropy of one block of logits (the inner step of the above, and the unit that golden files
// test): losses as above; dz (rows, vocab) in T = scale * (softmax(z) - onehot), or null.
template <class T>
void cross_entropy(Cpu&, float* losses, T* dz, const float* z, const int32_t* targets, float scale,
                   int64_t rows, int64_t vocab);
template <class T>
void cross_entropy(Cuda&, float* losses, T* dz, const float* z, const int32_t* targets, float scale,
                   int64_t rows, int64_t vocab);

}  // namespace rodimus
