// DDTS gates over two (B,T,2m) arrays. Backward does not read q, but reads the bias.
#include "kernels/ddts_gates.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

template <class T>
struct Problem {
  DdtsGatesDims dims;
  int64_t n;
  Array<T> qk, gates, q, k;
  Array<float> bias, g;

  explicit Problem(const Shape& shape)
      : dims{shape.rows(), kMemory, 1e-12f},
        n(shape.rows() * kMemory),
        qk(normal<T>(2 * n, 1)),
        gates(normal<T>(2 * n, 2, 2)),
        q(normal<T>(n, 3)),
        k(normal<T>(n, 4)),
        bias(normal<float>(2 * kMemory, 5)),
        g(normal<float>(n, 6)) {}
};

void suite() {
  add_types("ddts_gates_forward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              return Work{static_cast<double>(p.n) * (6 * sizeof(T) + 4), [=]() mutable {
                            ddts_gates_forward<T>(exec, {.dims = p.dims,
                                                         .qk = p.qk.data(),
                                                         .gates = p.gates.data(),
                                                         .bias = p.bias.data(),
                                                         .q = p.q.data(),
                                                         .k = p.k.data(),
                                                         .g = p.g.data()});
                          }};
            });
  add_types("ddts_gates_backward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              const auto dqk = filled<T>(2 * p.n), dgates = filled<T>(2 * p.n);
              const auto dbias = filled<float>(2 * kMemory);
              return Work{static_cast<double>(p.n) * (9 * sizeof(T) + 4), [=]() mutable {
                            ddts_gates_backward<T>(exec, {.dims = p.dims,
                                                          .qk = p.qk.data(),
                                                          .gates = p.gates.data(),
                                                          .bias = p.bias.data(),
                                                          .dq = p.q.data(),
                                                          .dk = p.k.data(),
                                                          .dg = p.g.data(),
                                                          .dqk = dqk.data(),
                                                          .dgates = dgates.data(),
                                                          .dbias = dbias.data()});
                          }};
            });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
