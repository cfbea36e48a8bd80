// SwiGLU over (B,T,4/3 d) and the value gate over (B,T,2d).
#include "kernels/gate.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

void suite() {
  add_types("swiglu_forward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const int64_t n = shape.rows() * shape.ffn();
              const auto u = normal<T>(n, 1), z = normal<T>(n, 2), y = filled<T>(n);
              return Work{3.0 * sizeof(T) * static_cast<double>(n), [=]() mutable {
                            swiglu_forward<T>(exec, y.data(), u.data(), z.data(), n);
                          }};
            });
  add_types("swiglu_backward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const int64_t n = shape.rows() * shape.ffn();
              const auto u = normal<T>(n, 1), z = normal<T>(n, 2), dy = normal<T>(n, 3);
              const auto du = filled<T>(n), dz = filled<T>(n);
              return Work{5.0 * sizeof(T) * static_cast<double>(n), [=]() mutable {
                            swiglu_backward<T>(exec, du.data(), dz.data(), dy.data(), u.data(),
                                               z.data(), n);
                          }};
            });
  add_types("sigmoid_gate_forward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const int64_t rows = shape.rows(), dim = shape.inner(), n = rows * dim;
              const auto x = normal<T>(n, 1), z = normal<T>(n, 2), y = filled<T>(n);
              const auto bias = normal<float>(dim, 3);
              return Work{3.0 * sizeof(T) * static_cast<double>(n), [=]() mutable {
                            sigmoid_gate_forward<T>(exec, {.rows = rows,
                                                           .dim = dim,
                                                           .z = z.data(),
                                                           .x = x.data(),
                                                           .bias = bias.data(),
                                                           .y = y.data()});
                          }};
            });
  add_types("sigmoid_gate_backward", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const int64_t rows = shape.rows(), dim = shape.inner(), n = rows * dim;
              const auto x = normal<T>(n, 1), z = normal<T>(n, 2), dy = normal<T>(n, 3);
              const auto dx = filled<T>(n), dz = filled<T>(n);
              const auto bias = normal<float>(dim, 4), dbias = filled<float>(dim);
              return Work{5.0 * sizeof(T) * static_cast<double>(n), [=]() mutable {
                            sigmoid_gate_backward<T>(exec, {.rows = rows,
                                                            .dim = dim,
                                                            .z = z.data(),
                                                            .x = x.data(),
                                                            .bias = bias.data(),
                                                            .dy = dy.data(),
                                                            .dz = dz.data(),
                                                            .dx = dx.data(),
                                                            .dbias = dbias.data()});
                          }};
            });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
