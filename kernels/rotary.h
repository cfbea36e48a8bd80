// Rotary position embedding, NeoX halves.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

struct RotaryDims {
  int64_t B, T, H, D;  // D even
  float base = 10000;
  int64_t offset = 0;  // position of the first token
};

// Angle a(t,i) = (offset + t) * base^(-2i/D), i < D/2:  y[i] = x[i] cos a - x[i+D/2] sin a,
// y[i+D/2] = x[i+D/2] cos a + x[i] sin a.
//   x, y (B,T,H,D) in T, may be the same array. Angles are taken in double, so position 1e6 is as
//   exact as position 1. (Su et al. 2021, arXiv:2104.09864)
template <class T>
void rotary_forward(Cpu&, T* y, const T* x, RotaryDims dims);
template <class T>
void rotary_forward(Cuda&, T* y, const T* x, RotaryDims dims);

// The transpose, which is the rotation by -a. May be in place.
template <class T>
void rotary_backward(Cpu&, T* dx, const T* dy, RotaryDims dims);
template <class T>
void rotary_backward(Cuda&, T* dx, const T* dy, RotaryDims dims);

ScratchBytes rotary_scratch(const Cpu&, RotaryDims dims);
ScratchBytes rotary_scratch(const Cuda&, RotaryDims dims);

}  // namespace rodimus
