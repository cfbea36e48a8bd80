// The output gate of the Rodimus mixer: skip connection, SiLU gate and RMS norm in one pass.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

struct GatedNormDims {
  int64_t rows, dim;
  float eps;
};

// u = (o + skip_weight * c) * silu(gate);  rstd = 1 / sqrt(mean(u^2) + eps);  y = u * rstd * w.
//   o, c, gate, y (rows, dim) in T; skip_weight, w (dim) f32; rstd (rows) f32.
// c and skip_weight may both be null: u = o * silu(gate).   Rodimus paper, arXiv:2410.06577,
// section 4.
template <class T>
void gated_norm_forward(Cpu&, T* y, float* rstd, const T* o, const T* c, const float* skip_weight,
                        const T* gate, const float* w, GatedNormDims dims);
template <class T>
void gated_norm_forward(Cuda&, T* y, float* rstd, const T* o, const T* c, const float* skip_weight,
                        const T* gate, const float* w, GatedNormDims dims);

// Gradients; u is recomputed. d_o, dc, dgate are overwritten, dskip_weight and dw are added to
// (fixed order of rows). dc and dskip_weight are null exactly when c is.
template <class T>
void gated_norm_backward(Cpu&, T* d_o, T* dc, float* dskip_weight, T* dgate, float* dw, const T* dy,
                         const T* o, const T* c, const float* skip_weight, const T* gate,
                         const float* w, const float* rstd, GatedNormDims dims);
template <class T>
void gated_norm_backward(Cuda&, T* d_o, T* dc, float* dskip_weight, T* dgate, float* dw,
                         const T* dy, const T* o, const T* c, const float* skip_weight,
                         const T* gate, const float* w, const float* rstd, GatedNormDims dims);

}  // namespace rodimus
