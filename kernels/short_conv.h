// Causal depthwise convolution over time followed by SiLU.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

struct ShortConvDims {
  int64_t B, T, D;
  int64_t width;  // taps; the authors use 4
};

// y[b,t,d] = silu(bias[d] + sum_{i=0}^{width-1} weight[d,i] * x[b, t - (width-1) + i, d])
template <class T>
struct ShortConvForwardArgs {
  ShortConvDims dims;
  const T* x;                  // (B,T,D)
  const float* weight;         // (D,width): PyTorch's Conv1d (D,1,width)
  const float* bias;           // (D)
  const T* history = nullptr;  // (B,width-1,D): the inputs before x, oldest first; null: zeros
  // (B,T) or null: position in [0,t] of the first token of the document that token t belongs to;
  // taps before it read zeros (so do taps into history unless starts[t] is 0). Null: one document,
  // continuing from history.
  const int32_t* starts = nullptr;

  T* y;  // (B,T,D)
};

template <class T>
void short_conv_forward(Cpu&, const ShortConvForwardArgs<T>& args);
template <class T>
void short_conv_forward(Cuda&, const ShortConvForwardArgs<T>& args);

// The pre-activation is recomputed from x.
template <class T>
struct ShortConvBackwardArgs {
  ShortConvDims dims;
  const T* x;
  const float *weight, *bias;
  const T* history = nullptr;
  const int32_t* starts = nullptr;
  const T* dy;  // (B,T,D)

  T* dx;                   // (B,T,D), overwritten
  T* dhistory = nullptr;   // (B,width-1,D), overwritten; null: not wanted
  float *dweight, *dbias;  // (D,width), (D), accumulated in a fixed order
};

template <class T>
void short_conv_backward(Cpu&, const ShortConvBackwardArgs<T>& args);
template <class T>
void short_conv_backward(Cuda&, const ShortConvBackwardArgs<T>& args);

ScratchBytes short_conv_scratch(const Cpu&, Direction direction, ShortConvDims dims);
ScratchBytes short_conv_scratch(const Cuda&, Direction direction, ShortConvDims dims);

}  // namespace rodimus
