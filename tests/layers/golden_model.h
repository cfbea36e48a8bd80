// A model with the sizes and parameters of a golden file.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "kernels/memory.h"
#include "layers/model.h"
#include "tests/support/compare.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"

namespace rodimus::testing {

inline ModelConfig golden_config(const Golden& golden) {
  const auto integer = [&](const char* name) { return static_cast<int64_t>(golden.number(name)); };
  ModelConfig config;
  config.block = golden.text("block_type");
  config.vocab_size = integer("vocab_size");
  config.d_model = integer("d_model");
  config.n_layers = integer("n_layer");
  config.mem_size = integer("mem_size");
  config.conv_width = integer("d_conv");
  config.expand = golden.number("expand_ratio");
  config.gate_rank = integer("low_rank");
  config.n_heads = integer("num_heads");
  if (golden.has_attribute("num_heads_k")) config.n_heads_k = integer("num_heads_k");
  if (golden.has_attribute("num_heads_v")) config.n_heads_v = integer("num_heads_v");
  if (golden.has_attribute("key_norm_eps")) config.key_norm_eps = golden.number("key_norm_eps");
  config.window = integer("left") < 0 ? kFullWindow : integer("left") + 1;
  config.ffn_ratio = golden.number("ffn_ratio");
  config.rope_base = golden.number("rope_base");
  config.norm_eps = golden.number("eps");
  config.tied = golden.number("tie") != 0;
  return config;
}

inline void load_golden(const Golden& golden, Exec& exec, Model& model) {
  const std::vector<std::string> names = golden.names("params");
  ASSERT_EQ(names.size(), model.parameters().parameters.size());
  for (Parameter* p : model.parameters().parameters) {
    const std::vector<float> values = golden.f32("params/" + p->name);
    ASSERT_EQ(golden.shape("params/" + p->name), p->shape) << p->name;
    on_device(exec, [&](auto& backend) {
      memory::upload(backend, p->var.value.raw(), values.data(), p->var.value.bytes());
    });
  }
  refresh_bf16_copy(exec, model.parameters());
}

// Copies int32 values from the host to the device under test.
inline Tensor there(const Tensor& ids) {
  Exec exec = backend();
  return to_device(exec, {ids.data<int32_t>(), static_cast<size_t>(ids.numel())}, ids.shape());
}

// ids (B,T) -> inputs (B,T-1), targets (B,T-1) as in the golden loss, on the host.
struct Shifted {
  Tensor inputs, targets;
};
inline Shifted shift(const int32_t* ids, int64_t B, int64_t T) {
  Shifted out{Tensor::empty({B, T - 1}, DType::i32), Tensor::empty({B, T - 1}, DType::i32)};
  for (int64_t b = 0; b < B; ++b) {
    std::copy(ids + b * T, ids + b * T + T - 1, out.inputs.data<int32_t>() + b * (T - 1));
    std::copy(ids + b * T + 1, ids + (b + 1) * T, out.targets.data<int32_t>() + b * (T - 1));
  }
  return out;
}

inline std::vector<double> values_of(const Tensor& x) {
  Exec exec = backend();
  const Tensor host = on_host(exec, x);
  return to_double(std::span<const float>(host.data<float>(), static_cast<size_t>(x.numel())));
}

inline double sum_of(const Tensor& losses) {
  double sum = 0;
  for (const double loss : values_of(losses)) sum += loss;
  return sum;
}

}  // namespace rodimus::testing
