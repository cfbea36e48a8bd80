// Casts and simple whole-array passes.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// y[i] = To(x[i]). Instantiated for f32 <-> bf16 and f32 -> f32.
template <class To, class From>
void convert(Cpu&, To* y, const From* x, int64_t n);
template <class To, class From>
void convert(Cuda&, To* y, const From* x, int64_t n);

// y[i] = value.
void fill(Cpu&, float* y, float value, int64_t n);
void fill(Cuda&, float* y, float value, int64_t n);

// y[i] += x[i]: in f32, rounded once per element. Instantiated for f32 and bf16.
template <class T>
void accumulate(Cpu&, T* y, const T* x, int64_t n);
template <class T>
void accumulate(Cuda&, T* y, const T* x, int64_t n);

}  // namespace rodimus
