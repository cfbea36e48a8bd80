// Tempered selection: softplus, sigmoid and a power per element, all from one exponential each.
#include "kernels/ddts_gates.h"

#include <cmath>

#include "kernels/parallel.h"
#include "kernels/simd.h"

namespace rodimus {
namespace {

using simd::Vec;

// sel = softplus(x), tau = sigmoid(z), power = sel^tau and what their gradients need.
struct Gates {
  Vec sel, log_sel;
  Vec dsel;      // d sel / dx = sigmoid(x)
  Vec dlog_sel;  // d log(sel) / dx = sigmoid(x) / sel
  Vec tau, one_minus_tau;
  Vec power;

  Gates(Vec x, Vec z) {
    const Vec e = simd::exp(-simd::abs(x));
    const Vec large = 1.0f / (1.0f + e);
    sel = simd::max(Vec{}, x) + simd::log1p_unit(e);
    dsel = x < 0.0f ? e * large : large;
    // Far to the left sel underflows and the ratio is 0 / 0, so the series in e = e^x takes over
    // (next term e^2, below 1e-8): log sel = x - e / 2, ratio = 1 - e / 2. The floor keeps
    // tau * log sel from being 0 * -inf.
    const auto left = x < -10.0f;
    log_sel = simd::max(simd::broadcast(-3e38f), left ? x - 0.5f * e : simd::log(sel));
    dlog_sel = left ? 1.0f - 0.5f * e : dsel / sel;
    const simd::SigmoidPair t = simd::sigmoid_pair(z);
    tau = t.value;
    one_minus_tau = t.complement;
    power = simd::exp(tau * log_sel);
  }
};

template <class T>
struct GateRow {
  const T* gates;
  const float* bias;
  int64_t m;

  template <class Lanes>
  Gates operator()(int64_t i, Lanes lanes) const {
    Vec x = simd::load(gates + i, lanes), z = simd::load(gates + m + i, lanes);
    if (bias != nullptr) {
      x += simd::load(bias + i, lanes);
      z += simd::load(bias + m + i, lanes);
    }
    return {x, z};
  }
};

template <class T>
float norm_of(const T* k, int64_t m) {
  Vec squares{};
  simd::for_lanes(m, [&](int64_t i, auto lanes) {
    const Vec value = simd::load(k + i, lanes);
    squares += value * value;
  });
  return std::sqrt(simd::reduce_add(squares));
}

}  // namespace

template <class T>
void ddts_gates_forward(Cpu& exec, T* q, T* k, float* g, const T* qk, const T* gates,
                        const float* bias, DdtsGatesDims dims) {
  const int64_t m = dims.m;
  parallel_rows(exec, dims.rows, 2 * m, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T *q_in = qk + 2 * m * r, *k_in = q_in + m;
      const float norm = norm_of(k_in, m);
      const float inverse = 1.0f / (norm < dims.key_norm_eps ? dims.key_norm_eps : norm);
      const GateRow<T> gate{gates + 2 * m * r, bias, m};
      simd::for_lanes(m, [&](int64_t i, auto lanes) {
        const Gates value = gate(i, lanes);
        simd::store(q + r * m + i, simd::load(q_in + i, lanes), lanes);
        simd::store(k + r * m + i, simd::load(k_in + i, lanes) * inverse * value.power, lanes);
        simd::store(g + r * m + i, -value.sel * value.tau, lanes);
      });
    }
  });
}

// With n = k / max(|k|, eps) and p = sel^tau:  dn = dk p,  dp = dk n;  where |k| > eps the part of
// dn along n is removed, because the norm does not depend on it.
template <class T>
void ddts_gates_backward(Cpu& exec, T* dqk, T* dgates, float* dbias, const T* dq, const T* dk,
                         const float* dg, const T* qk, const T* gates, const float* bias,
                         DdtsGatesDims dims) {
  const int64_t m = dims.m;
  const PerThread<float> workspace(exec, m);
  const auto rows_of_block = [&](int64_t begin, int64_t end, float* dbias_part) {
    float* dn = workspace.mine();
    const auto store_gate = [&](T* out, float* sum, Vec value, auto lanes) {
      simd::store(out, value, lanes);
      simd::store(sum, simd::load(sum, lanes) + value, lanes);
    };
    for (int64_t r = begin; r < end; ++r) {
      const T* k_in = qk + 2 * m * r + m;
      const float norm = norm_of(k_in, m);
      const bool clamped = norm < dims.key_norm_eps;
      const float inverse = 1.0f / (clamped ? dims.key_norm_eps : norm);
      const GateRow<T> gate{gates + 2 * m * r, bias, m};
      Vec along{};
      simd::for_lanes(m, [&](int64_t i, auto lanes) {
        const Gates value = gate(i, lanes);
        const Vec n = simd::load(k_in + i, lanes) * inverse;
        const Vec dkp = simd::load(dk + r * m + i, lanes) * value.power;
        const Vec dg_i = simd::load(dg + r * m + i, lanes);
        const Vec dlog = dkp * n;  // d loss / d log p
        along += dlog;
        simd::store(dn + i, dkp, lanes);
        simd::store(dqk + 2 * m * r + i, simd::load(dq + r * m + i, lanes), lanes);
        store_gate(dgates + 2 * m * r + i, dbias_part + i,
                   value.tau * (dlog * value.dlog_sel - dg_i * value.dsel), lanes);
        const Vec dtau = dlog * value.log_sel - dg_i * value.sel;
        store_gate(dgates + 2 * m * r + m + i, dbias_part + m + i,
                   dtau * (value.tau * value.one_minus_tau), lanes);
      });
      const float projection = clamped ? 0.0f : simd::reduce_add(along);
      simd::for_lanes(m, [&](int64_t i, auto lanes) {
        const Vec n = simd::load(k_in + i, lanes) * inverse;
        simd::store(dqk + 2 * m * r + m + i, (simd::load(dn + i, lanes) - n * projection) * inverse,
                    lanes);
      });
    }
  };
  sum_over_rows(exec, dims.rows, {{dbias, 2 * m}}, rows_of_block);
}

#define INSTANTIATE(T)                                                                      \
  template void ddts_gates_forward(Cpu&, T*, T*, float*, const T*, const T*, const float*,  \
                                   DdtsGatesDims);                                          \
  template void ddts_gates_backward(Cpu&, T*, T*, float*, const T*, const T*, const float*, \
                                    const T*, const T*, const float*, DdtsGatesDims);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
