// Short convolution with SiLU over (B,T,2d), four taps.
#include "kernels/short_conv.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

template <class T>
struct Problem {
  ShortConvDims dims;
  int64_t n;
  Array<T> x, y;
  Array<float> weight, bias;

  explicit Problem(const Shape& shape)
      : dims{shape.B, shape.T, shape.inner(), 4},
        n(shape.rows() * shape.inner()),
        x(normal<T>(n, 1)),
        y(filled<T>(n)),
        weight(normal<float>(4 * dims.D, 2, 0.5)),
        bias(normal<float>(dims.D, 3)) {}
};

void suite() {
  add_types("short_conv_forward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              return Work{2.0 * sizeof(T) * static_cast<double>(p.n), [=]() mutable {
                            short_conv_forward<T>(exec, {.dims = p.dims,
                                                         .x = p.x.data(),
                                                         .weight = p.weight.data(),
                                                         .bias = p.bias.data(),
                                                         .y = p.y.data()});
                          }};
            });
  add_types("short_conv_backward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              const auto dy = normal<T>(p.n, 4);
              const auto dweight = filled<float>(4 * p.dims.D), dbias = filled<float>(p.dims.D);
              return Work{3.0 * sizeof(T) * static_cast<double>(p.n), [=]() mutable {
                            short_conv_backward<T>(exec, {.dims = p.dims,
                                                          .x = p.x.data(),
                                                          .weight = p.weight.data(),
                                                          .bias = p.bias.data(),
                                                          .dy = dy.data(),
                                                          .dx = p.y.data(),
                                                          .dweight = dweight.data(),
                                                          .dbias = dbias.data()});
                          }};
            });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
