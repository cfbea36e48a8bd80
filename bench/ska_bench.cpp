// Sliding-window attention, all heads over one key head: the presets, and 12 heads of 64 with a
// window of 512. FLOP count only the visible pairs.
#include "kernels/ska.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

template <class T>
struct Problem {
  SkaDims dims;
  int64_t n, keys;
  Array<T> q, k, v, o;
  Array<float> lse;

  explicit Problem(const Shape& shape)
      : dims{.B = shape.B,
             .T = shape.T,
             .H = shape.heads,
             .D = shape.d / shape.heads,
             .Hk = 1,
             .Hv = shape.heads,
             .left = shape.window - 1},
        n(shape.rows() * shape.d),
        keys(shape.rows() * dims.D),
        q(normal<T>(n, 1)),
        k(normal<T>(keys, 2)),
        v(normal<T>(n, 3)),
        o(normal<T>(n, 4)),
        lse(filled<float>(shape.rows() * shape.heads)) {}
  // One product over the visible pairs.
  double product() const {
    double pairs = 0;
    for (int64_t t = 0; t < dims.T; ++t) pairs += static_cast<double>(std::min(t, dims.left) + 1);
    return 2 * pairs * static_cast<double>(dims.B * dims.H * dims.D);
  }
  void forward(Cpu& exec) const {
    ska_forward<T>(exec, {.dims = dims,
                          .q = q.data(),
                          .k = k.data(),
                          .v = v.data(),
                          .o = o.data(),
                          .lse = lse.data()});
  }
};

constexpr Shape kShapes[] = {
    kPresets[0], kPresets[1], kPresets[2], {"12x64", 1, 2048, 768, 12, 512, 0}};

void suite() {
  // q k^T, p v.
  add_types(
      "ska_forward", Limit::kProduct,
      []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
        const Problem<T> p(shape);
        return Work{2 * p.product(), [=]() mutable { p.forward(exec); }};
      },
      kShapes);
  // q k^T again, d_o v^T, dv, dq, dk.
  add_types(
      "ska_backward", Limit::kProduct,
      []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
        const Problem<T> p(shape);
        p.forward(exec);
        const auto d_o = normal<T>(p.n, 5), dq = filled<T>(p.n), dv = filled<T>(p.n),
                   dk = filled<T>(p.keys);
        return Work{5 * p.product(), [=]() mutable {
                      ska_backward<T>(exec, {.dims = p.dims,
                                             .q = p.q.data(),
                                             .k = p.k.data(),
                                             .v = p.v.data(),
                                             .o = p.o.data(),
                                             .lse = p.lse.data(),
                                             .d_o = d_o.data(),
                                             .dq = dq.data(),
                                             .dk = dk.data(),
                                             .dv = dv.data()});
                    }};
      },
      kShapes);
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
