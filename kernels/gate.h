// The two elementwise gates of the model: SwiGLU in the FFN, the sigmoid value gate (beta) in the
// mixer.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// y = silu(z) * u, elementwise over n. All in T.        (Shazeer 2020, arXiv:2002.05202)
template <class T>
void swiglu_forward(Cpu&, T* y, const T* u, const T* z, int64_t n);
template <class T>
void swiglu_forward(Cuda&, T* y, const T* u, const T* z, int64_t n);
template <class T>
void swiglu_backward(Cpu&, T* du, T* dz, const T* dy, const T* u, const T* z, int64_t n);
template <class T>
void swiglu_backward(Cuda&, T* du, T* dz, const T* dy, const T* u, const T* z, int64_t n);

// y = sigmoid(z + bias) * x.
template <class T>
struct SigmoidGateForwardArgs {
  int64_t rows, dim;
  const T *z, *x;     // (rows, dim)
  const float* bias;  // (dim)

  T* y;  // (rows, dim)
};

template <class T>
void sigmoid_gate_forward(Cpu&, const SigmoidGateForwardArgs<T>& args);
template <class T>
void sigmoid_gate_forward(Cuda&, const SigmoidGateForwardArgs<T>& args);

template <class T>
struct SigmoidGateBackwardArgs {
  int64_t rows, dim;
  const T *z, *x;
  const float* bias;
  const T* dy;  // (rows, dim)

  T *dz, *dx;    // (rows, dim), overwritten
  float* dbias;  // (dim), accumulated in a fixed order of rows
};

template <class T>
void sigmoid_gate_backward(Cpu&, const SigmoidGateBackwardArgs<T>& args);
template <class T>
void sigmoid_gate_backward(Cuda&, const SigmoidGateBackwardArgs<T>& args);

// Scratch of sigmoid_gate_backward; the others take none.
ScratchBytes sigmoid_gate_scratch(const Cpu&, int64_t rows, int64_t dim);
ScratchBytes sigmoid_gate_scratch(const Cuda&, int64_t rows, int64_t dim);

}  // namespace rodimus
