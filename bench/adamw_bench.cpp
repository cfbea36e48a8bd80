// AdamW and the gradient norm over as many parameters as the first blocks of a model have.
#include "kernels/adamw.h"

#include "bench/bench.h"
#include "kernels/reduce.h"

namespace rodimus::bench {
namespace {

int64_t parameters(const Shape& shape) { return 40 * shape.d * shape.d; }

void suite() {
  const AdamWStep step{1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, 0.5f, 0.5f};
  for (const bool with_copy : {false, true})
    add(with_copy ? "adamw/bf16_copy" : "adamw/f32", Limit::kBandwidth,
        [=](const Shape& shape, Cpu exec) {
          const int64_t n = parameters(shape);
          const auto p = normal<float>(n, 1), g = normal<float>(n, 2), m = filled<float>(n),
                     v = filled<float>(n);
          const auto copy = filled<bf16>(with_copy ? n : 0);
          return Work{(with_copy ? 30.0 : 28.0) * static_cast<double>(n), [=]() mutable {
                        adamw(exec, p.data(), m.data(), v.data(), with_copy ? copy.data() : nullptr,
                              g.data(), n, step);
                      }};
        });
  add("sum_of_squares/f32", Limit::kBandwidth, [](const Shape& shape, Cpu exec) {
    const int64_t n = parameters(shape);
    const auto g = normal<float>(n, 1);
    return Work{4.0 * static_cast<double>(n),
                [=]() mutable { benchmark::DoNotOptimize(sum_of_squares(exec, g.data(), n)); }};
  });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
