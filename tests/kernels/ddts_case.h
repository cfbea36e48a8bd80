// Inputs and outputs of one DDTS problem in double, and the three ways to compute it.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "kernels/ddts.h"
#include "kernels/reference/ddts.h"
#include "tests/support/compare.h"
#include "tests/support/device.h"
#include "tests/support/random.h"

namespace rodimus::testing {

using Doubles = std::vector<double>;

struct DdtsInputs {
  DdtsDims dims;
  Doubles q, k, v, g, state_in, d_o, dstate_out;
  std::vector<int32_t> starts;  // empty = null
};

struct DdtsOutputs {
  Doubles o, state_out, dq, dk, dv, dg, dstate_in;

  // Members in declaration order, with their names.
  std::vector<std::pair<const char*, const Doubles*>> named() const {
    return {{"o", &o},   {"state_out", &state_out}, {"dq", &dq}, {"dk", &dk}, {"dv", &dv},
            {"dg", &dg}, {"dstate_in", &dstate_in}};
  }
};

// Every value exact in bf16, so that all precisions see the same problem. g = -decay *
// softplus-like positive numbers.
inline DdtsInputs random_ddts(DdtsDims dims, double decay, uint64_t seed) {
  const auto [B, T, K, V] = dims;
  const auto rounded = [](Doubles x) { return to_double(cast<bf16>(x)); };
  DdtsInputs in{dims,
                rounded(normal(B * T * K, seed)),
                rounded(normal(B * T * K, seed + 1, 0.3)),
                rounded(normal(B * T * V, seed + 2)),
                rounded(normal(B * T * K, seed + 3, decay)),
                rounded(normal(B * K * V, seed + 4)),
                rounded(normal(B * T * V, seed + 5)),
                rounded(normal(B * K * V, seed + 6)),
                {}};
  for (double& g : in.g) g = -std::abs(g);
  return in;
}

// The backend. On the GPU `threads` is the number of multiprocessors, which determines the launch.
inline Backend ddts_backend(int threads) {
  Backend exec = backend(threads);
#ifdef RODIMUS_TEST_CUDA
  exec.sm_count = threads;
#endif
  return exec;
}

// Runs the kernels; float results of bf16 runs are the stored values.
template <class T>
DdtsOutputs run_ddts(const DdtsInputs& in, int threads = 1, bool null_state = false) {
  const Array<T> q(cast<T>(in.q)), k(cast<T>(in.k)), v(cast<T>(in.v)), d_o(cast<T>(in.d_o));
  const Array<float> g(cast<float>(in.g)), state_in(cast<float>(in.state_in)),
      dstate_out(cast<float>(in.dstate_out));
  // NaN wherever the kernel has to write.
  const T nan(NAN);
  Array<T> o(v.size(), nan), dq(q.size(), nan), dk(q.size(), nan), dv(v.size(), nan);
  Array<float> dg(g.size(), NAN), state_out(state_in.size(), NAN), dstate_in(state_in.size(), NAN);
  const Array<int32_t> starts(in.starts);
  const int32_t* start = in.starts.empty() ? nullptr : starts.data();
  const float* state = null_state ? nullptr : state_in.data();
  Backend exec = ddts_backend(threads);
  ddts_forward<T>(exec, {.dims = in.dims,
                         .q = q.data(),
                         .k = k.data(),
                         .v = v.data(),
                         .g = g.data(),
                         .state_in = state,
                         .starts = start,
                         .o = o.data(),
                         .state_out = state_out.data()});
  ddts_backward<T>(exec, {.dims = in.dims,
                          .q = q.data(),
                          .k = k.data(),
                          .v = v.data(),
                          .g = g.data(),
                          .state_in = state,
                          .starts = start,
                          .d_o = d_o.data(),
                          .dstate_out = dstate_out.data(),
                          .dq = dq.data(),
                          .dk = dk.data(),
                          .dv = dv.data(),
                          .dg = dg.data(),
                          .dstate_in = dstate_in.data()});
  return {to_double(o),  to_double(state_out), to_double(dq),       to_double(dk),
          to_double(dv), to_double(dg),        to_double(dstate_in)};
}

// The specification in double.
inline DdtsOutputs reference_ddts(const DdtsInputs& in) {
  DdtsOutputs out{Doubles(in.v.size()), in.state_in,          Doubles(in.q.size()),
                  Doubles(in.q.size()), Doubles(in.v.size()), Doubles(in.q.size()),
                  in.dstate_out};
  const int32_t* starts = in.starts.empty() ? nullptr : in.starts.data();
  reference::ddts(out.o.data(), out.state_out.data(), in.q.data(), in.k.data(), in.v.data(),
                  in.g.data(), starts, in.dims);
  reference::ddts_backward(out.dq.data(), out.dk.data(), out.dv.data(), out.dg.data(),
                           out.dstate_in.data(), in.d_o.data(), in.q.data(), in.k.data(),
                           in.v.data(), in.g.data(), in.state_in.data(), starts, in.dims);
  return out;
}

inline void expect_close(const DdtsOutputs& got, const DdtsOutputs& want, double tolerance) {
  for (size_t i = 0; i < got.named().size(); ++i) {
    const auto [name, value] = got.named()[i];
    EXPECT_TRUE(close(*value, *want.named()[i].second, tolerance)) << name;
  }
}

}  // namespace rodimus::testing
