// Output gate and norm over (B,T,2d).
#include "kernels/gated_norm.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

template <class T>
struct Problem {
  GatedNormDims dims;
  int64_t n;
  Array<T> o, c, gate, y;
  Array<float> skip_weight, w, rstd;

  explicit Problem(const Shape& shape)
      : dims{shape.rows(), shape.inner(), 1e-5f},
        n(dims.rows * dims.dim),
        o(normal<T>(n, 1)),
        c(normal<T>(n, 2)),
        gate(normal<T>(n, 3)),
        y(normal<T>(n, 4)),
        skip_weight(normal<float>(dims.dim, 5)),
        w(normal<float>(dims.dim, 6)),
        rstd(filled<float>(dims.rows, 1)) {}
};

void suite() {
  add_types("gated_norm_forward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              return Work{4.0 * sizeof(T) * static_cast<double>(p.n), [=]() mutable {
                            gated_norm_forward<T>(exec, {.dims = p.dims,
                                                         .o = p.o.data(),
                                                         .c = p.c.data(),
                                                         .skip_weight = p.skip_weight.data(),
                                                         .gate = p.gate.data(),
                                                         .w = p.w.data(),
                                                         .y = p.y.data(),
                                                         .rstd = p.rstd.data()});
                          }};
            });
  add_types("gated_norm_backward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              const auto d_o = filled<T>(p.n), dc = filled<T>(p.n), dgate = filled<T>(p.n);
              const auto dskip = filled<float>(p.dims.dim), dw = filled<float>(p.dims.dim);
              return Work{7.0 * sizeof(T) * static_cast<double>(p.n), [=]() mutable {
                            gated_norm_backward<T>(exec, {.dims = p.dims,
                                                          .o = p.o.data(),
                                                          .c = p.c.data(),
                                                          .skip_weight = p.skip_weight.data(),
                                                          .gate = p.gate.data(),
                                                          .w = p.w.data(),
                                                          .rstd = p.rstd.data(),
                                                          .dy = p.y.data(),
                                                          .d_o = d_o.data(),
                                                          .dc = dc.data(),
                                                          .dgate = dgate.data(),
                                                          .dskip_weight = dskip.data(),
                                                          .dw = dw.data()});
                          }};
            });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
