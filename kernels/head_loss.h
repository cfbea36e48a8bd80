// Language-model head and cross-entropy, fused over blocks of rows: the (rows, vocab) logits never
// exist.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

inline constexpr int32_t kIgnoreTarget = -100;

struct HeadLossDims {
  int64_t rows, dim, vocab;
};

// z = x w^T;  losses[r] = logsumexp(z[r]) - z[r, targets[r]], and 0 where targets[r] is
// kIgnoreTarget.
//   x (rows, dim), w (vocab, dim) in T; targets (rows) int32; losses (rows) f32, natural log. z in
//   f32.
// Throws Error naming the first target outside [0, vocab).
template <class T>
void head_loss_forward(Cpu&, float* losses, const T* x, const T* w, const int32_t* targets,
                       HeadLossDims dims);
template <class T>
void head_loss_forward(Cuda&, float* losses, const T* x, const T* w, const int32_t* targets,
                       HeadLossDims dims);

// The same losses and, from the same logits, the gradients of scale * sum(losses):
//   dz = scale * (softmax(z) - onehot(target)), rounded to T;  dx (rows, dim) = dz w in T,
//   overwritten; dw (vocab, dim) f32 += dz^T x, block after block.
// Done with forward so that the logits are computed once, not twice: the loss is the root of every
// tape, so its upstream gradient is known beforehand.
template <class T>
void head_loss_forward_backward(Cpu&, float* losses, T* dx, float* dw, const T* x, const T* w,
                                const int32_t* targets, float scale, HeadLossDims dims);
template <class T>
void head_loss_forward_backward(Cuda&, float* losses, T* dx, float* dw, const T* x, const T* w,
                                const int32_t* targets, float scale, HeadLossDims dims);

// Cross-entropy of one block of logits (the inner step of the above, also the unit that goldens
// test): losses as above; dz (rows, vocab) in T = scale * (softmax(z) - onehot), or null.
template <class T>
void cross_entropy(Cpu&, float* losses, T* dz, const float* z, const int32_t* targets, float scale,
                   int64_t rows, int64_t vocab);
template <class T>
void cross_entropy(Cuda&, float* losses, T* dz, const float* z, const int32_t* targets, float scale,
                   int64_t rows, int64_t vocab);

}  // namespace rodimus
