// Tempered selection: softplus, sigmoid and a power per element, from three exponentials. A row
// goes through several short loops with intermediate values in L1: in one long loop each element is
// a 200-cycle dependency chain, and a core can overlap only two of them.
#include "kernels/ddts_gates.h"

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace rodimus {

using namespace cpu;
namespace {

using simd::Vec;

// sel = softplus(x), tau = sigmoid(z) of one row, and with kSlopes what their gradients need: dsel
// = d sel / dx = sigmoid(x), dlog_sel = d log(sel) / dx = sigmoid(x) / sel,
// dtau = d tau / dz = tau (1 - tau).
struct GateRow {
  static constexpr int64_t kArrays = 6;
  int64_t m;
  float *sel, *log_sel, *tau, *dsel, *dlog_sel, *dtau;

  GateRow(float* workspace, int64_t count)  // (kArrays, m)
      : m(count),
        sel(workspace),
        log_sel(workspace + m),
        tau(workspace + 2 * m),
        dsel(workspace + 3 * m),
        dlog_sel(workspace + 4 * m),
        dtau(workspace + 5 * m) {}

  // gates (2m): one row; bias (2m) or null.
  template <bool kSlopes, class T>
  void compute(const T* gates, const float* bias) const {
    const auto gate = [&](int64_t i, auto lanes) {
      const Vec x = simd::load(gates + i, lanes);
      return bias == nullptr ? x : x + simd::load(bias + i, lanes);
    };
    float* const exponential = tau;  // e^-|x|, until tau is made
    simd::for_lanes(m, [&](int64_t i, auto lanes) {
      const Vec x = gate(i, lanes), e = simd::exp_normal(-simd::abs(x));
      simd::store(exponential + i, e, lanes);
      simd::store(sel + i, simd::max(Vec{}, x) + simd::log1p_unit(e), lanes);
    });
    simd::for_lanes(m, [&](int64_t i, auto lanes) {
      const Vec x = gate(i, lanes), e = simd::load(exponential + i, lanes);
      const Vec selected = simd::load(sel + i, lanes);
      // For very negative x, sel underflows and the ratio is 0 / 0, so use the series in e = e^x
      // instead (next term e^2, below 1e-8): log sel = x - e / 2, ratio = 1 - e / 2. The floor
      // keeps tau * log sel from being 0 * -inf.
      const auto left = x < -10.0f;
      const Vec logarithm = left ? x - 0.5f * e : simd::log_normal(selected);
      simd::store(log_sel + i, simd::max(simd::broadcast(-1e30f), logarithm), lanes);
      if constexpr (kSlopes) {
        const Vec large = 1.0f / (1.0f + e), slope = x < 0.0f ? e * large : large;
        simd::store(dsel + i, slope, lanes);
        simd::store(dlog_sel + i, left ? 1.0f - 0.5f * e : slope / selected, lanes);
      }
    });
    simd::for_lanes(m, [&](int64_t i, auto lanes) {
      const simd::SigmoidPair t = simd::sigmoid_pair(gate(m + i, lanes));
      simd::store(tau + i, t.value, lanes);
      if constexpr (kSlopes) simd::store(dtau + i, t.value * t.complement, lanes);
    });
  }
  // sel^tau.
  template <class Lanes>
  Vec power(int64_t i, Lanes lanes) const {
    return simd::exp_normal(simd::load(tau + i, lanes) * simd::load(log_sel + i, lanes));
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
void ddts_gates_forward(Cpu& exec, const DdtsGatesForwardArgs<T>& args) {
  const DdtsGatesDims& dims = args.dims;
  const int64_t m = dims.m;
  const PerThread<float> workspace(exec, GateRow::kArrays * m);
  parallel_rows(exec, dims.rows, 2 * m, [&](int64_t begin, int64_t end) {
    const GateRow row(workspace.mine(), m);
    for (int64_t r = begin; r < end; ++r) {
      const T *q_in = args.qk + 2 * m * r, *k_in = q_in + m;
      const float norm = norm_of(k_in, m);
      const float inverse = 1.0f / (norm < dims.key_norm_eps ? dims.key_norm_eps : norm);
      row.compute<false>(args.gates + 2 * m * r, args.bias);
      T *q_out = args.q + r * m, *k_out = args.k + r * m;
      float* g_out = args.g + r * m;
      simd::for_lanes(m, [&](int64_t i, auto lanes) {
        simd::store(q_out + i, simd::load(q_in + i, lanes), lanes);
        simd::store(k_out + i, simd::load(k_in + i, lanes) * inverse * row.power(i, lanes), lanes);
        const Vec sel = simd::load(row.sel + i, lanes), tau = simd::load(row.tau + i, lanes);
        simd::store(g_out + i, -sel * tau, lanes);
      });
    }
  });
}

// With n = k / max(|k|, eps) and p = sel^tau:  dn = dk p,  dp = dk n;  where |k| > eps the part of
// dn along n is removed, because the norm does not depend on it.
template <class T>
void ddts_gates_backward(Cpu& exec, const DdtsGatesBackwardArgs<T>& args) {
  const DdtsGatesDims& dims = args.dims;
  const int64_t m = dims.m;
  const PerThread<float> workspace(exec, (GateRow::kArrays + 1) * m);
  const auto rows_of_block = [&](int64_t begin, int64_t end, float* dbias_part) {
    const GateRow row(workspace.mine(), m);
    float* dn = workspace.mine() + GateRow::kArrays * m;
    const auto store_gate = [&](T* out, float* sum, Vec value, auto lanes) {
      simd::store(out, value, lanes);
      simd::store(sum, simd::load(sum, lanes) + value, lanes);
    };
    for (int64_t r = begin; r < end; ++r) {
      const T* k_in = args.qk + 2 * m * r + m;
      const float norm = norm_of(k_in, m);
      const bool clamped = norm < dims.key_norm_eps;
      const float inverse = 1.0f / (clamped ? dims.key_norm_eps : norm);
      row.compute<true>(args.gates + 2 * m * r, args.bias);
      const T *dq_in = args.dq + r * m, *dk_in = args.dk + r * m;
      const float* dg_in = args.dg + r * m;
      T *dq_out = args.dqk + 2 * m * r, *dgate_out = args.dgates + 2 * m * r;
      Vec along{};
      simd::for_lanes(m, [&](int64_t i, auto lanes) {
        const Vec dkp = simd::load(dk_in + i, lanes) * row.power(i, lanes);
        const Vec dlog = dkp * (simd::load(k_in + i, lanes) * inverse);  // d loss / d log p
        const Vec dg_i = simd::load(dg_in + i, lanes);
        along += dlog;
        simd::store(dn + i, dkp, lanes);
        simd::store(dq_out + i, simd::load(dq_in + i, lanes), lanes);
        const Vec dsel =
            dlog * simd::load(row.dlog_sel + i, lanes) - dg_i * simd::load(row.dsel + i, lanes);
        store_gate(dgate_out + i, dbias_part + i, simd::load(row.tau + i, lanes) * dsel, lanes);
        const Vec dtau =
            dlog * simd::load(row.log_sel + i, lanes) - dg_i * simd::load(row.sel + i, lanes);
        store_gate(dgate_out + m + i, dbias_part + m + i, dtau * simd::load(row.dtau + i, lanes),
                   lanes);
      });
      const float projection = clamped ? 0.0f : simd::reduce_add(along);
      simd::for_lanes(m, [&](int64_t i, auto lanes) {
        const Vec n = simd::load(k_in + i, lanes) * inverse;
        simd::store(dq_out + m + i, (simd::load(dn + i, lanes) - n * projection) * inverse, lanes);
      });
    }
  };
  sum_over_rows(exec, dims.rows, {{args.dbias, 2 * m}}, rows_of_block);
}

ScratchBytes ddts_gates_scratch(const Cpu& exec, Direction direction, DdtsGatesDims dims) {
  if (direction == Direction::forward)
    return {PerThread<float>::bytes(exec, GateRow::kArrays * dims.m)};
  return {PerThread<float>::bytes(exec, (GateRow::kArrays + 1) * dims.m),
          RowBlocks(dims.rows, 2 * dims.m).bytes()};
}

#define INSTANTIATE(T)                                                    \
  template void ddts_gates_forward(Cpu&, const DdtsGatesForwardArgs<T>&); \
  template void ddts_gates_backward(Cpu&, const DdtsGatesBackwardArgs<T>&);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
