// DDTS recurrence: linear attention with a decay per key channel, one head, chunked.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

struct DdtsDims {
  int64_t B, T, K, V;
};

// S_t = diag(exp(g_t)) S_{t-1} + k_t^T v_t;   o_t = q_t S_t / sqrt(K).
// (arXiv:2410.06577, section 3; the state S is (K, V))
template <class T>
struct DdtsForwardArgs {
  DdtsDims dims;
  const T *q, *k;                   // (B,T,K)
  const T* v;                       // (B,T,V)
  const float* g;                   // (B,T,K), natural log of the decay, <= 0 (not checked)
  const float* state_in = nullptr;  // (B,K,V); null: zeros
  // (B,T) or null: position of the first token of the document that token t belongs to. Where
  // starts[t] == t > 0 the state is zeroed before token t. (For a document that starts at token 0
  // the caller passes state_in = null.)
  const int32_t* starts = nullptr;

  T* o;                        // (B,T,V)
  float* state_out = nullptr;  // (B,K,V), the state after token T - 1; may be state_in
};

// Any T >= 1, K, V >= 1. Chunks of 64 tokens with sub-chunks of 16 whose decays are relative to the
// sub-chunk: no exponent is ever positive, so a cumulative log decay of -5000 neither overflows nor
// loses accuracy. All sums and states in f32. T = 1 takes the recurrent form (decoding).
// Cuda takes K <= 128, else throws Error. With bf16 inputs, it rounds the operands of tensor-core
// products to bf16 once: decayed q and k, scores, and the state where it is read (the carried state
// stays f32); backward keeps the states at chunk borders in bf16. With f32 inputs nothing is
// rounded.
template <class T>
void ddts_forward(Cpu&, const DdtsForwardArgs<T>& args);
template <class T>
void ddts_forward(Cuda&, const DdtsForwardArgs<T>& args);

// Gradients of the above; all outputs are overwritten.
template <class T>
struct DdtsBackwardArgs {
  DdtsDims dims;
  const T *q, *k, *v;
  const float* g;
  const float* state_in = nullptr;
  const int32_t* starts = nullptr;
  const T* d_o;                       // (B,T,V)
  const float* dstate_out = nullptr;  // (B,K,V); null: zeros

  T *dq, *dk;                  // (B,T,K)
  T* dv;                       // (B,T,V)
  float* dg;                   // (B,T,K)
  float* dstate_in = nullptr;  // (B,K,V); null: not wanted
};

// The states at chunk borders are recomputed; forward saves nothing. Sums over value blocks run in
// a fixed order, so the result does not depend on the number of threads.
template <class T>
void ddts_backward(Cpu&, const DdtsBackwardArgs<T>& args);
template <class T>
void ddts_backward(Cuda&, const DdtsBackwardArgs<T>& args);

// Forward: the operands of all chunks; backward: those, plus the states at their borders and the
// gradients of these.
ScratchBytes ddts_forward_scratch(const Cpu&, DType type, DdtsDims dims);
ScratchBytes ddts_forward_scratch(const Cuda&, DType type, DdtsDims dims);
ScratchBytes ddts_backward_scratch(const Cpu&, DType type, DdtsDims dims);
ScratchBytes ddts_backward_scratch(const Cuda&, DType type, DdtsDims dims);

}  // namespace rodimus
