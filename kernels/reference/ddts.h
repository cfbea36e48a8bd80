// Specification of the DDTS recurrence (contract: kernels/ddts.h), token by token, on any number
// type: double for values, std::complex<double> for derivatives by complex step.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/ddts.h"

namespace rodimus::reference {

inline bool ddts_resets(const int32_t* starts, int64_t T, int64_t b, int64_t t) {
  return starts != nullptr && t > 0 && starts[b * T + t] == t;
}

// state (B,K,V): in, the state before the first token; out, after the last.
template <class N>
void ddts(N* o, N* state, const N* q, const N* k, const N* v, const N* g, const int32_t* starts,
          DdtsDims dims) {
  using std::exp;
  const auto [B, T, K, V] = dims;
  for (int64_t b = 0; b < B; ++b) {
    N* s = state + b * K * V;
    for (int64_t t = 0; t < T; ++t) {
      const int64_t row = b * T + t;
      const bool reset = ddts_resets(starts, T, b, t);
      for (int64_t j = 0; j < V; ++j) o[row * V + j] = 0;
      for (int64_t c = 0; c < K; ++c) {
        const N decay = reset ? N(0) : exp(g[row * K + c]);
        for (int64_t j = 0; j < V; ++j) {
          s[c * V + j] = decay * s[c * V + j] + k[row * K + c] * v[row * V + j];
          o[row * V + j] += q[row * K + c] * s[c * V + j] / std::sqrt(static_cast<double>(K));
        }
      }
    }
  }
}

// Gradients, all overwritten except dstate (B,K,V): in, the gradient of the state after the last
// token; out, of the state before the first. `state` is the state before the first token.
template <class N>
void ddts_backward(N* dq, N* dk, N* dv, N* dg, N* dstate, const N* d_o, const N* q, const N* k,
                   const N* v, const N* g, const N* state, const int32_t* starts, DdtsDims dims) {
  using std::exp;
  const auto [B, T, K, V] = dims;
  const double scale = 1 / std::sqrt(static_cast<double>(K));
  std::vector<N> states(static_cast<size_t>((T + 1) * K * V));  // before token t
  for (int64_t b = 0; b < B; ++b) {
    const auto decay = [&](int64_t t, int64_t c) {
      return ddts_resets(starts, T, b, t) ? N(0) : exp(g[(b * T + t) * K + c]);
    };
    for (int64_t i = 0; i < K * V; ++i) states[i] = state[b * K * V + i];
    for (int64_t t = 0; t < T; ++t)
      for (int64_t c = 0; c < K; ++c)
        for (int64_t j = 0; j < V; ++j)
          states[((t + 1) * K + c) * V + j] = decay(t, c) * states[(t * K + c) * V + j] +
                                              k[(b * T + t) * K + c] * v[(b * T + t) * V + j];
    N* ds = dstate + b * K * V;
    for (int64_t t = T - 1; t >= 0; --t) {
      const int64_t row = b * T + t;
      for (int64_t j = 0; j < V; ++j) dv[row * V + j] = 0;
      for (int64_t c = 0; c < K; ++c) {
        N dq_sum = 0, dk_sum = 0, ddecay = 0;
        for (int64_t j = 0; j < V; ++j) {
          dq_sum += states[((t + 1) * K + c) * V + j] * d_o[row * V + j] * scale;
          ds[c * V + j] += q[row * K + c] * d_o[row * V + j] * scale;
          dk_sum += ds[c * V + j] * v[row * V + j];
          dv[row * V + j] += ds[c * V + j] * k[row * K + c];
          ddecay += ds[c * V + j] * states[(t * K + c) * V + j];
          ds[c * V + j] *= decay(t, c);
        }
        dq[row * K + c] = dq_sum;
        dk[row * K + c] = dk_sum;
        dg[row * K + c] = ddecay * decay(t, c);
      }
    }
  }
}

}  // namespace rodimus::reference
