// RMS norm fused with the residual addition before it, in one pass: in a pre-norm block the two
// always come together.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// s = x + branch;  rstd = 1 / sqrt(mean(s^2) + eps);  y = s * rstd * w.        (Zhang & Sennrich
// 2019, arXiv:1910.07467)
template <class T>
struct ResidualNormForwardArgs {
  int64_t rows, dim;
  float eps;
  const float* x;             // (rows, dim): the residual stream
  const T* branch = nullptr;  // (rows, dim); null: s = x, and s is not written
  const float* w;             // (dim)

  float* s = nullptr;  // (rows, dim); may be x; null when branch is
  T* y;                // (rows, dim)
  float* rstd;         // (rows)
};

template <class T>
void residual_norm_forward(Cpu&, const ResidualNormForwardArgs<T>& args);
template <class T>
void residual_norm_forward(Cuda&, const ResidualNormForwardArgs<T>& args);

// d = ds + d(rms_norm)(dy);  dx = beta dx + d;  dbranch = T(d);  dw += sum over rows of dy * s *
// rstd.
template <class T>
struct ResidualNormBackwardArgs {
  int64_t rows, dim;
  float beta;      // 0 or 1
  const float* s;  // (rows, dim): the forward sum, x itself if branch was null
  const float *w, *rstd;
  const T* dy;  // (rows, dim)
  const float* ds =
      nullptr;  // (rows, dim): the gradient of s from its other uses. May be dx if beta is 0

  float* dx;             // (rows, dim)
  T* dbranch = nullptr;  // (rows, dim); null: not wanted
  float* dw;             // (dim), accumulated
};

// The sum over rows runs over fixed blocks of rows, so it does not depend on the number of threads.
template <class T>
void residual_norm_backward(Cpu&, const ResidualNormBackwardArgs<T>& args);
template <class T>
void residual_norm_backward(Cuda&, const ResidualNormBackwardArgs<T>& args);

// Scratch of backward; forward takes none.
ScratchBytes residual_norm_scratch(const Cpu&, int64_t rows, int64_t dim);
ScratchBytes residual_norm_scratch(const Cuda&, int64_t rows, int64_t dim);

}  // namespace rodimus
