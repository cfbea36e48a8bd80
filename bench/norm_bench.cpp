// Residual addition and RMS norm over (B,T,d); the stream is f32.
#include "kernels/norm.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

template <class T>
struct Problem {
  int64_t rows, dim, n;
  Array<float> x, s, w, rstd;
  Array<T> branch, y;

  explicit Problem(const Shape& shape)
      : rows(shape.rows()),
        dim(shape.d),
        n(rows * dim),
        x(normal<float>(n, 1)),
        s(normal<float>(n, 2)),
        w(normal<float>(dim, 3)),
        rstd(filled<float>(rows, 1)),
        branch(normal<T>(n, 4)),
        y(normal<T>(n, 5)) {}
};

void suite() {
  // The first norm of a model has no branch; all others do.
  for (const bool branch : {false, true})
    add_types(branch ? "residual_norm_forward" : "norm_forward", Limit::kBandwidth,
              [branch]<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
                const Problem<T> p(shape);
                const double bytes = branch ? 8 + 2 * sizeof(T) : 4 + sizeof(T);
                return Work{bytes * static_cast<double>(p.n), [=]() mutable {
                              residual_norm_forward<T>(
                                  exec, {.rows = p.rows,
                                         .dim = p.dim,
                                         .eps = 1e-5f,
                                         .x = p.x.data(),
                                         .branch = branch ? p.branch.data() : nullptr,
                                         .w = p.w.data(),
                                         .s = branch ? p.s.data() : nullptr,
                                         .y = p.y.data(),
                                         .rstd = p.rstd.data()});
                            }};
              });
  add_types("residual_norm_backward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              const auto dx = filled<float>(p.n), dw = filled<float>(p.dim);
              return Work{(12.0 + 2 * sizeof(T)) * static_cast<double>(p.n), [=]() mutable {
                            residual_norm_backward<T>(exec, {.rows = p.rows,
                                                             .dim = p.dim,
                                                             .beta = 0,
                                                             .s = p.s.data(),
                                                             .w = p.w.data(),
                                                             .rstd = p.rstd.data(),
                                                             .dy = p.y.data(),
                                                             .ds = p.x.data(),
                                                             .dx = dx.data(),
                                                             .dbranch = p.branch.data(),
                                                             .dw = dw.data()});
                          }};
            });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
