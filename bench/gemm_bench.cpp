// Matrix products of a block, rows = B T: y = x w^T, dx = dy w, dw += dy^T x, named by the layer.
#include "bench/bench.h"

namespace rodimus::bench {
namespace {

struct Layer {
  const char* name;
  int64_t in, out;
};

std::vector<Layer> layers(const Shape& s) {
  const int64_t e = s.inner(), rank = std::max<int64_t>(s.d / 64, 16);
  return {{"fc", s.d, e},           {"qk", e, 2 * kMemory},    {"value_down", e, rank},
          {"value_up", rank, e},    {"out", e, s.d},           {"attention", s.d, s.d},
          {"ffn_in", s.d, s.ffn()}, {"ffn_out", s.ffn(), s.d}, {"head", s.d, s.vocab}};
}

template <class T>
Work forward(int64_t rows, Layer l, Cpu exec) {
  const auto x = normal<T>(rows * l.in, 1), w = normal<T>(l.out * l.in, 2);
  const auto y = filled<T>(rows * l.out);
  return {2.0 * static_cast<double>(rows * l.in * l.out), [=]() mutable {
            gemm(exec, {.m = rows, .n = l.out, .k = l.in, .transpose_b = true}, y.data(), x.data(),
                 w.data(), 0.0f);
          }};
}

template <class T>
Work input_gradient(int64_t rows, Layer l, Cpu exec) {
  const auto dy = normal<T>(rows * l.out, 1), w = normal<T>(l.out * l.in, 2);
  const auto dx = filled<T>(rows * l.in);
  return {2.0 * static_cast<double>(rows * l.in * l.out), [=]() mutable {
            gemm(exec, {.m = rows, .n = l.in, .k = l.out}, dx.data(), dy.data(), w.data(), 0.0f);
          }};
}

template <class T>
Work weight_gradient(int64_t rows, Layer l, Cpu exec) {
  const auto x = normal<T>(rows * l.in, 1), dy = normal<T>(rows * l.out, 2);
  const auto dw = filled<float>(l.out * l.in);
  return {2.0 * static_cast<double>(rows * l.in * l.out), [=]() mutable {
            gemm(exec, {.m = l.out, .n = l.in, .k = rows, .transpose_a = true}, dw.data(),
                 dy.data(), x.data(), 1.0f);
          }};
}

void suite() {
  const std::vector<Layer> names = layers(kPresets[0]);
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string layer = names[i].name;
    add_types("gemm_forward/" + layer, Limit::kProduct,
              [i]<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
                return forward<T>(shape.rows(), layers(shape)[i], exec);
              });
    add_types("gemm_input_gradient/" + layer, Limit::kProduct,
              [i]<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
                return input_gradient<T>(shape.rows(), layers(shape)[i], exec);
              });
    add_types("gemm_weight_gradient/" + layer, Limit::kProduct,
              [i]<class T>(std::type_identity<T>, const Shape& shape, Cpu exec) {
                return weight_gradient<T>(shape.rows(), layers(shape)[i], exec);
              });
  }
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
