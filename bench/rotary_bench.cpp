// Rotary embedding of the queries, (B,T,H,d/H). Backward is the same pass with the angle negated.
#include "kernels/rotary.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

void suite() {
  const auto make = []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec, bool forward) {
    const RotaryDims dims{shape.B, shape.T, shape.heads, shape.d / shape.heads};
    const int64_t n = shape.rows() * shape.d;
    const auto x = normal<T>(n, 1), y = filled<T>(n);
    return Work{2.0 * sizeof(T) * static_cast<double>(n), [=]() mutable {
                  if (forward)
                    rotary_forward<T>(exec, y.data(), x.data(), dims);
                  else
                    rotary_backward<T>(exec, y.data(), x.data(), dims);
                }};
  };
  for (const bool forward : {true, false})
    add_types(
        forward ? "rotary_forward" : "rotary_backward", Limit::kBandwidth,
        [=](auto type, const Shape& shape, Cpu exec) { return make(type, shape, exec, forward); });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
