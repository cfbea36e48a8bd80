#include "layers/config.h"

#include <algorithm>

#include "base/error.h"
#include "layers/blocks.h"

namespace rodimus {
namespace {

int64_t round_up(double value) { return (static_cast<int64_t>(value) + 7) / 8 * 8; }

// Rejects a model whose size in bytes, optimizer included, exceeds 63 bits: no machine comes near
// that.
void check_total(const ModelConfig& config) {
  constexpr double kMost = 1e15;
  std::vector<Parameter*> parameters;  // shapes alone: nothing is allocated
  const auto block = block_type(config.block).make(config, "");
  block->collect(parameters);
  double weights =
      2.0 * static_cast<double>(config.vocab_size) * static_cast<double>(config.d_model);
  for (const Parameter* p : parameters) {
    double elements = static_cast<double>(config.n_layers);  // int64_t might overflow
    for (const int64_t size : p->shape) elements *= static_cast<double>(size);
    weights += elements;
  }
  if (weights > kMost) {
    fail("model: about ", weights, " parameters (d_model = ", config.d_model,
         ", n_layers = ", config.n_layers, ", vocab_size = ", config.vocab_size,
         ", mem_size = ", config.mem_size, "); at most ", kMost, " are possible");
  }
}

}  // namespace

void check_size(const char* key, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return;
  fail("model.", key, " = ", value, ": must be in [", least, ", ", most, "]");
}

int64_t ModelConfig::d_inner() const { return round_up(expand * static_cast<double>(d_model)); }
int64_t ModelConfig::value_gate_rank() const {
  return gate_rank > 0 ? gate_rank : std::max<int64_t>(d_model / 64, 16);
}
int64_t ModelConfig::d_ff() const { return round_up(ffn_ratio * static_cast<double>(d_model)); }

void ModelConfig::validate() const {
  check_size("vocab_size", vocab_size, 1);
  check_size("d_model", d_model, 1);
  check_size("n_layers", n_layers, 1, kMaxLayers);
  if (!(norm_eps > 0)) fail("model.norm_eps = ", norm_eps, ": must be positive");
  block_type(block).check(*this);
  check_total(*this);
}

}  // namespace rodimus
