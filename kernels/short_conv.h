// Causal depthwise convolution over time followed by SiLU.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

struct ShortConvDims {
  int64_t B, T, D;
  int64_t width;  // taps; the authors use 4
};

// y[b,t,d] = silu(bias[d] + sum_{i=0}^{width-1} weight[d,i] * x[b, t - (width-1) + i, d])
//   x, y (B,T,D) in T; weight (D,width) f32 (PyTorch's Conv1d (D,1,width)); bias (D) f32.
//   history (B,width-1,D) in T: the inputs before x, oldest first; null means zeros.
//   starts (B,T) int32 or null: position in [0,t] of the first token of the document that token t
//   belongs to; taps before it read zeros (so do taps into history unless starts[t] is 0). Null:
//   one document, continuing from history.
template <class T>
void short_conv_forward(Cpu&, T* y, const T* x, const float* weight, const float* bias,
                        const T* history, const int32_t* starts, ShortConvDims dims);
template <class T>
void short_conv_forward(Cuda&, T* y, const T* x, const float* weight, const float* bias,
                        const T* history, const int32_t* starts, ShortConvDims dims);

// dx is overwritten, dhistory (may be null) too; dweight and dbias are added to in a fixed order.
// The pre-activation is recomputed from x.
template <class T>
void short_conv_backward(Cpu&, T* dx, float* dweight, float* dbias, T* dhistory, const T* dy,
                         const T* x, const float* weight, const float* bias, const T* history,
                         const int32_t* starts, ShortConvDims dims);
template <class T>
void short_conv_backward(Cuda&, T* dx, float* dweight, float* dbias, T* dhistory, const T* dy,
                         const T* x, const float* weight, const float* bias, const T* history,
                         const int32_t* starts, ShortConvDims dims);

}  // namespace rodimus
