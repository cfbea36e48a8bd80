// From the two small projections to the operands of the DDTS recurrence: one pass over (rows, 2m)
// twice.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

struct DdtsGatesDims {
  int64_t rows, m;
  float key_norm_eps;  // 1e-12 by default, 1e-5 in the released checkpoints
};

// Data-dependent tempered selection (arXiv:2410.06577, section 3.2):
//   sel = softplus(gates[:, :m] + bias[:m]);  tau = sigmoid(gates[:, m:] + bias[m:])
//   q = qk[:, :m];  k = qk[:, m:] / max(|qk[:, m:]|_2, key_norm_eps) * sel^tau;  g = -sel * tau
//   (natural log decay, <= 0) qk, gates (rows, 2m) in T; bias (2m) f32 or null; q, k (rows, m) in
//   T; g (rows, m) f32.
// Any gate is fine, infinities included: sel^tau is exp(tau * log sel) with log sel taken from the
// gate, not from a sel that has underflowed, so k goes to 0 no sooner than the power itself does.
template <class T>
void ddts_gates_forward(Cpu&, T* q, T* k, float* g, const T* qk, const T* gates, const float* bias,
                        DdtsGatesDims dims);
template <class T>
void ddts_gates_forward(Cuda&, T* q, T* k, float* g, const T* qk, const T* gates, const float* bias,
                        DdtsGatesDims dims);

// dqk, dgates (rows, 2m) in T are overwritten; dbias (2m) f32 is added to in a fixed order (null
// when bias is).
template <class T>
void ddts_gates_backward(Cpu&, T* dqk, T* dgates, float* dbias, const T* dq, const T* dk,
                         const float* dg, const T* qk, const T* gates, const float* bias,
                         DdtsGatesDims dims);
template <class T>
void ddts_gates_backward(Cuda&, T* dqk, T* dgates, float* dbias, const T* dq, const T* dk,
                         const float* dg, const T* qk, const T* gates, const float* bias,
                         DdtsGatesDims dims);

}  // namespace rodimus
