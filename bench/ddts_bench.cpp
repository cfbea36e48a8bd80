// DDTS recurrence, K = 64, V = 2d. FLOP are multiply-adds x 2 of the chunked form; only the causal
// halves of its 64 x 64 products count.
#include "kernels/ddts.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

template <class T>
struct Problem {
  DdtsDims dims;
  int64_t keys, values;
  Array<T> q, k, v, o;
  Array<float> g;

  explicit Problem(const Shape& shape)
      : dims{shape.B, shape.T, kMemory, shape.inner()},
        keys(shape.rows() * kMemory),
        values(shape.rows() * shape.inner()),
        q(normal<T>(keys, 1)),
        k(normal<T>(keys, 2, 0.1)),
        v(normal<T>(values, 3)),
        o(normal<T>(values, 4)),
        g(normal<float>(keys, 5, 0.1)) {
    for (float& x : g.span()) x = -std::abs(x);
  }
  // Products that involve the value columns, in units of K x V per token, and those that do not, in
  // units of K x 64.
  double flop(double with_values, double without) const {
    return 2 * kMemory *
           (with_values * static_cast<double>(values) +
            without * 64 * static_cast<double>(dims.B * dims.T));
  }
};

void suite() {
  // scores v (half), q S, k^T v; scores (half).
  add_types("ddts_forward", Limit::kProduct,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              return Work{p.flop(2.5, 0.5), [=]() mutable {
                            ddts_forward<T>(exec, {.dims = p.dims,
                                                   .q = p.q.data(),
                                                   .k = p.k.data(),
                                                   .v = p.v.data(),
                                                   .g = p.g.data(),
                                                   .o = p.o.data()});
                          }};
            });
  // S, dS, scores^T d_o (half), k dS, d_o v^T (half), d_o S^T, v dS^T; scores, dq, dk (halves).
  add_types("ddts_backward", Limit::kProduct,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              const auto dq = filled<T>(p.keys), dk = filled<T>(p.keys), dv = filled<T>(p.values);
              const auto dg = filled<float>(p.keys);
              return Work{p.flop(6, 1.5), [=]() mutable {
                            ddts_backward<T>(exec, {.dims = p.dims,
                                                    .q = p.q.data(),
                                                    .k = p.k.data(),
                                                    .v = p.v.data(),
                                                    .g = p.g.data(),
                                                    .d_o = p.o.data(),
                                                    .dq = dq.data(),
                                                    .dk = dk.data(),
                                                    .dv = dv.data(),
                                                    .dg = dg.data()});
                          }};
            });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
