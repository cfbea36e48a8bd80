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

// y = sigmoid(z + bias) * x:  z, x, y (rows, dim) in T; bias (dim) f32.
template <class T>
void sigmoid_gate_forward(Cpu&, T* y, const T* z, const float* bias, const T* x, int64_t rows,
                          int64_t dim);
template <class T>
void sigmoid_gate_forward(Cuda&, T* y, const T* z, const float* bias, const T* x, int64_t rows,
                          int64_t dim);
// dz, dx overwritten; dbias added to in a fixed order of rows.
template <class T>
void sigmoid_gate_backward(Cpu&, T* dz, float* dbias, T* dx, const T* dy, const T* z,
                           const float* bias, const T* x, int64_t rows, int64_t dim);
template <class T>
void sigmoid_gate_backward(Cuda&, T* dz, float* dbias, T* dx, const T* dy, const T* z,
                           const float* bias, const T* x, int64_t rows, int64_t dim);

}  // namespace rodimus
