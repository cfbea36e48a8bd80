// DDTS recurrence: linear attention with a decay per key channel, one head, chunked.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

struct DdtsDims {
  int64_t B, T, K, V;
};

// S_t = diag(exp(g_t)) S_{t-1} + k_t^T v_t;   o_t = q_t S_t / sqrt(K).        (arXiv:2410.06577,
// section 3; state S is (K, V))
//   o, v (B,T,V), q, k (B,T,K) in T; g (B,T,K) f32, natural log of the decay, <= 0 (not checked).
//   state_in, state_out (B,K,V) f32; state_in null = zeros, state_out null = not wanted; they may
//   be the same array. starts (B,T) int32 or null: position of the first token of the document that
//   token t belongs to; where starts[t] == t > 0 the state is zeroed before token t. (A document
//   that starts at token 0 is the caller's business: pass state_in = null.)
// Any T >= 1, K, V >= 1. Chunks of 64 tokens with sub-chunks of 16 whose decays are relative to the
// sub-chunk: no exponent is ever positive, so a cumulative log decay of -5000 neither overflows nor
// loses accuracy. All sums and states in f32. T = 1 takes the recurrent form (decoding).
// Cuda takes K <= 128, else throws Error. There, in bf16, the operands of products on the tensor
// cores are rounded to bf16 once: decayed q and k, scores, the state where it is read (the state
// that is carried on is not); backward keeps the states at chunk borders in bf16. In f32 nothing
// is.
template <class T>
void ddts_forward(Cpu&, T* o, float* state_out, const T* q, const T* k, const T* v, const float* g,
                  const float* state_in, const int32_t* starts, DdtsDims dims);
template <class T>
void ddts_forward(Cuda&, T* o, float* state_out, const T* q, const T* k, const T* v, const float* g,
                  const float* state_in, const int32_t* starts, DdtsDims dims);

// Gradients of the above, all overwritten: dq, dk (B,T,K), dv (B,T,V) in T, dg (B,T,K) f32,
// dstate_in (B,K,V) f32 or null. d_o (B,T,V) in T; dstate_out (B,K,V) f32 or null for zeros. The
// states at chunk borders are recomputed, nothing is saved by forward. Sums over value blocks run
// in a fixed order: the result does not depend on the number of threads.
template <class T>
void ddts_backward(Cpu&, T* dq, T* dk, T* dv, float* dg, float* dstate_in, const T* d_o,
                   const float* dstate_out, const T* q, const T* k, const T* v, const float* g,
                   const float* state_in, const int32_t* starts, DdtsDims dims);
template <class T>
void ddts_backward(Cuda&, T* dq, T* dk, T* dv, float* dg, float* dstate_in, const T* d_o,
                   const float* dstate_out, const T* q, const T* k, const T* v, const float* g,
                   const float* state_in, const int32_t* starts, DdtsDims dims);

}  // namespace rodimus
