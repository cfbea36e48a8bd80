// Head and loss: the products of (B,T,d) with the (vocab,d) head, counting only their FLOP, and the
// cross-entropy of 1024 rows of logits on its own.
#include "kernels/head_loss.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

Array<int32_t> targets_of(int64_t rows, int64_t vocab) {
  Array<int32_t> targets(rows);
  for (int64_t i = 0; i < rows; ++i) targets[i] = static_cast<int32_t>(i * 7919 % vocab);
  return targets;
}

template <class T>
struct Problem {
  HeadLossDims dims;
  Array<T> x, w, dx;
  Array<int32_t> targets;
  Array<float> losses, dw;

  explicit Problem(const Shape& shape)
      : dims{shape.rows(), shape.d, shape.vocab},
        x(normal<T>(dims.rows * dims.dim, 1)),
        w(normal<T>(dims.vocab * dims.dim, 2, 0.02)),
        dx(filled<T>(dims.rows * dims.dim)),
        targets(targets_of(dims.rows, dims.vocab)),
        losses(filled<float>(dims.rows)),
        dw(filled<float>(dims.vocab * dims.dim)) {}
  double product() const { return 2.0 * static_cast<double>(dims.rows * dims.dim * dims.vocab); }
};

void suite() {
  add_types("head_loss_forward", Limit::kProduct,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              return Work{p.product(), [=]() mutable {
                            head_loss_forward<T>(exec, {.dims = p.dims,
                                                        .x = p.x.data(),
                                                        .w = p.w.data(),
                                                        .targets = p.targets.data(),
                                                        .losses = p.losses.data()});
                          }};
            });
  add_types("head_loss_forward_backward", Limit::kProduct,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const Problem<T> p(shape);
              return Work{3 * p.product(), [=]() mutable {
                            head_loss_forward_backward<T>(exec, {.dims = p.dims,
                                                                 .x = p.x.data(),
                                                                 .w = p.w.data(),
                                                                 .targets = p.targets.data(),
                                                                 .scale = 1e-3f,
                                                                 .losses = p.losses.data(),
                                                                 .dx = p.dx.data(),
                                                                 .dw = p.dw.data()});
                          }};
            });
  add_types("cross_entropy", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              constexpr int64_t kRows = 1024;
              const int64_t n = kRows * shape.vocab;
              const auto z = normal<float>(n, 1), losses = filled<float>(kRows);
              const auto dz = filled<T>(n);
              const auto targets = targets_of(kRows, shape.vocab);
              return Work{(4.0 + sizeof(T)) * static_cast<double>(n), [=]() mutable {
                            cross_entropy<T>(exec, losses.data(), dz.data(), z.data(),
                                             targets.data(), 1e-3f, kRows, shape.vocab);
                          }};
            });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
