// The output gate of the Rodimus mixer: skip connection, SiLU gate and RMS norm in one pass.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

struct GatedNormDims {
  int64_t rows, dim;
  float eps;
};

// u = (o + skip_weight * c) * silu(gate);  rstd = 1 / sqrt(mean(u^2) + eps);  y = u * rstd * w.
// (arXiv:2410.06577, section 4) c and skip_weight may both be null: u = o * silu(gate).
template <class T>
struct GatedNormForwardArgs {
  GatedNormDims dims;
  const T* o;                          // (rows, dim)
  const T* c = nullptr;                // (rows, dim)
  const float* skip_weight = nullptr;  // (dim)
  const T* gate;                       // (rows, dim)
  const float* w;                      // (dim)

  T* y;         // (rows, dim)
  float* rstd;  // (rows)
};

template <class T>
void gated_norm_forward(Cpu&, const GatedNormForwardArgs<T>& args);
template <class T>
void gated_norm_forward(Cuda&, const GatedNormForwardArgs<T>& args);

// Gradients; u is recomputed.
template <class T>
struct GatedNormBackwardArgs {
  GatedNormDims dims;
  const T* o;
  const T* c = nullptr;
  const float* skip_weight = nullptr;
  const T* gate;
  const float *w, *rstd;
  const T* dy;  // (rows, dim)

  // (rows, dim), overwritten. dc and dskip_weight are null exactly when c is.
  T* d_o;
  T* dc = nullptr;
  T* dgate;
  // (dim), accumulated in a fixed order of rows.
  float* dskip_weight = nullptr;
  float* dw;
};

template <class T>
void gated_norm_backward(Cpu&, const GatedNormBackwardArgs<T>& args);
template <class T>
void gated_norm_backward(Cuda&, const GatedNormBackwardArgs<T>& args);

// Scratch when c is given.
ScratchBytes gated_norm_scratch(const Cpu&, Direction direction, GatedNormDims dims);
ScratchBytes gated_norm_scratch(const Cuda&, Direction direction, GatedNormDims dims);

}  // namespace rodimus
