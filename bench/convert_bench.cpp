// Casts, fill and accumulation over (B,T,2d).
#include "kernels/convert.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

template <class To, class From>
Work conversion(const Shape& shape, Cpu exec) {
  const int64_t n = shape.rows() * shape.inner();
  const auto x = normal<From>(n, 1);
  const auto y = filled<To>(n);
  return {static_cast<double>(n * static_cast<int64_t>(sizeof(To) + sizeof(From))),
          [=]() mutable { convert<To, From>(exec, y.data(), x.data(), n); }};
}

void suite() {
  add("convert/f32_to_bf16", Limit::kBandwidth, conversion<bf16, float>);
  add("convert/bf16_to_f32", Limit::kBandwidth, conversion<float, bf16>);
  add("convert/f32_to_f32", Limit::kBandwidth, conversion<float, float>);
  add("fill/f32", Limit::kBandwidth, [](const Shape& shape, Cpu exec) {
    const int64_t n = shape.rows() * shape.inner();
    const auto y = filled<float>(n);
    return Work{4.0 * static_cast<double>(n), [=]() mutable { fill(exec, y.data(), 0.0f, n); }};
  });
  add_types("accumulate", Limit::kBandwidth,
            []<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
              const int64_t n = shape.rows() * shape.inner();
              const auto x = normal<T>(n, 1), y = filled<T>(n);
              return Work{3.0 * sizeof(T) * static_cast<double>(n),
                          [=]() mutable { accumulate<T>(exec, y.data(), x.data(), n); }};
            });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
