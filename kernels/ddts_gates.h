// Turns the two small projections into the operands of the DDTS recurrence, in one pass over two
// (rows, 2m) arrays.
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
template <class T>
struct DdtsGatesForwardArgs {
  DdtsGatesDims dims;
  const T *qk, *gates;          // (rows, 2m)
  const float* bias = nullptr;  // (2m); null: zeros

  T *q, *k;  // (rows, m)
  float* g;  // (rows, m), natural log of the decay, <= 0
};

// Gates may be any value, infinities included: sel^tau is exp(tau * log sel), with log sel computed
// from the gate rather than from a possibly underflowed sel, so k reaches 0 no sooner than the
// power itself does.
template <class T>
void ddts_gates_forward(Cpu&, const DdtsGatesForwardArgs<T>& args);
template <class T>
void ddts_gates_forward(Cuda&, const DdtsGatesForwardArgs<T>& args);

template <class T>
struct DdtsGatesBackwardArgs {
  DdtsGatesDims dims;
  const T *qk, *gates;
  const float* bias = nullptr;
  const T *dq, *dk;  // (rows, m)
  const float* dg;   // (rows, m)

  T *dqk, *dgates;         // (rows, 2m), overwritten
  float* dbias = nullptr;  // (2m), accumulated in a fixed order; null when bias is
};

template <class T>
void ddts_gates_backward(Cpu&, const DdtsGatesBackwardArgs<T>& args);
template <class T>
void ddts_gates_backward(Cuda&, const DdtsGatesBackwardArgs<T>& args);

ScratchBytes ddts_gates_scratch(const Cpu&, Direction direction, DdtsGatesDims dims);
ScratchBytes ddts_gates_scratch(const Cuda&, Direction direction, DdtsGatesDims dims);

}  // namespace rodimus
