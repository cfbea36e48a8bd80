// RMS norm with the residual addition in front of it, in one pass: the two always come together in
// a pre-norm block.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// s = x + branch;  rstd = 1 / sqrt(mean(s^2) + eps);  y = s * rstd * w.        (Zhang & Sennrich
// 2019, arXiv:1910.07467)
//   s, x (rows, dim) f32: the residual stream. branch (rows, dim), y (rows, dim) in T. rstd (rows)
//   f32, w (dim) f32.
// branch may be null: then s = x, and s is not written (it may be null). s may equal x (in place).
template <class T>
void residual_norm_forward(Cpu&, float* s, T* y, float* rstd, const float* x, const T* branch,
                           const float* w, int64_t rows, int64_t dim, float eps);
template <class T>
void residual_norm_forward(Cuda&, float* s, T* y, float* rstd, const float* x, const T* branch,
                           const float* w, int64_t rows, int64_t dim, float eps);

// d = ds + d(rms_norm)(dy);  dx = beta dx + d;  dbranch = T(d);  dw += sum over rows of dy * s *
// rstd.
//   s is the forward sum (x itself when branch was null). ds (rows, dim) f32 is the gradient that
//   reaches s by its other uses, or null; it may equal dx when beta is 0. dbranch may be null. beta
//   is 0 or 1. dw (dim) f32 is added to.
// The sum over rows runs over fixed blocks of rows, so it does not depend on the number of threads.
template <class T>
void residual_norm_backward(Cpu&, float* dx, T* dbranch, float* dw, const T* dy, const float* ds,
                            const float* s, const float* w, const float* rstd, int64_t rows,
                            int64_t dim, float beta);
template <class T>
void residual_norm_backward(Cuda&, float* dx, T* dbranch, float* dw, const T* dy, const float* ds,
                            const float* s, const float* w, const float* rstd, int64_t rows,
                            int64_t dim, float beta);

}  // namespace rodimus
