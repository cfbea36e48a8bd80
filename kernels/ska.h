// SW-SKA: causal sliding-window softmax attention whose heads share keys. Flash-style: no T x T
// matrix exists anywhere.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

struct SkaDims {
  int64_t B, T, H, D;  // T queries
  int64_t Hk = 1,
          Hv = 1;  // query head j reads key head j mod Hk and value head j mod Hv; both divide H
  int64_t Tk =
      0;  // keys; 0 = T. Query i stands at key position i + Tk - T (earlier keys come from a cache)
  int64_t left = -1;  // query at position p sees keys p-left .. p; -1 = all earlier keys (window =
                      // left + 1 keys)
};

// `dims` with Tk filled in. Throws Error on shapes that the contract excludes.
inline SkaDims ska_checked(SkaDims dims, bool documents) {
  if (dims.Tk == 0) dims.Tk = dims.T;
  CHECK(dims.B >= 0 && dims.T >= 0 && dims.H >= 1 && dims.D >= 1, "ska: B = ", dims.B,
        ", T = ", dims.T, ", H = ", dims.H, ", D = ", dims.D, "; B, T >= 0 and H, D >= 1 expected");
  CHECK(dims.Hk >= 1 && dims.Hv >= 1 && dims.H % dims.Hk == 0 && dims.H % dims.Hv == 0,
        "ska: H = ", dims.H, " must be a multiple of Hk = ", dims.Hk, " and of Hv = ", dims.Hv);
  CHECK(dims.Tk >= dims.T, "ska: Tk = ", dims.Tk, " keys for T = ", dims.T,
        " queries; every query needs its own key");
  CHECK(!documents || dims.Tk == dims.T, "ska: document starts need Tk == T, got Tk = ", dims.Tk,
        ", T = ", dims.T);
  return dims;
}

// o = softmax(q k^T / sqrt(D)) v over the visible keys; lse = log of the softmax denominator,
// natural.        (arXiv:2410.06577, section 4; tiling: arXiv:2205.14135)
template <class T>
struct SkaForwardArgs {
  SkaDims dims;
  const T* q;  // (B,T,H,D)
  const T* k;  // (B,Tk,Hk,D)
  const T* v;  // (B,Tk,Hv,D)
  // (B,T) or null: key position of the first token of the query's document; earlier keys are not
  // seen. Needs Tk == T; the CPU checks them.
  const int32_t* starts = nullptr;

  T* o;        // (B,T,H,D)
  float* lse;  // (B,H,T)
};

// On the GPU D <= 256.
template <class T>
void ska_forward(Cpu&, const SkaForwardArgs<T>& args);
template <class T>
void ska_forward(Cuda&, const SkaForwardArgs<T>& args);

template <class T>
struct SkaBackwardArgs {
  SkaDims dims;
  const T *q, *k, *v;
  const int32_t* starts = nullptr;
  const T* o;
  const float* lse;
  const T* d_o;  // (B,T,H,D)

  T *dq, *dk, *dv;  // as q, k, v; overwritten
};

// Sums over queries and heads run in a fixed order that does not depend on the number of threads.
template <class T>
void ska_backward(Cpu&, const SkaBackwardArgs<T>& args);
template <class T>
void ska_backward(Cuda&, const SkaBackwardArgs<T>& args);

// On the GPU, the scratch for T > 16: with fewer queries, as in generation, the keys may be cut
// into pieces.
ScratchBytes ska_forward_scratch(const Cpu&, SkaDims dims);
ScratchBytes ska_forward_scratch(const Cuda&, SkaDims dims);
ScratchBytes ska_backward_scratch(const Cpu&, SkaDims dims);
ScratchBytes ska_backward_scratch(const Cuda&, SkaDims dims);

}  // namespace rodimus
