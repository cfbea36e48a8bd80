#include "layers/config.h"

#include <algorithm>

#include "autograd/ops.h"
#include "base/error.h"
#include "layers/blocks.h"

namespace rodimus {
namespace {

int64_t round_up(double value) { return (static_cast<int64_t>(value) + 7) / 8 * 8; }

// A model whose bytes, optimizer included, would not fit 63 bits: no machine comes near.
void check_total(const ModelConfig& config) {
  constexpr double kMost = 1e15;
  // Two FLOPs per weight, and the embedding is as large as the head, which is counted.
  const double weights = forward_flops_per_token(config, 1) / 2;
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

double forward_flops_per_token(const ModelConfig& c, int64_t T) {
  const double d = static_cast<double>(c.d_model), e = static_cast<double>(c.d_inner());
  const double m = static_cast<double>(c.mem_size), r = static_cast<double>(c.value_gate_rank());
  // Projections: fc (d, 2e), out (e, d), qk and gates (e, 2m) each, the low-rank value gate.
  double weights = 3 * d * e + 4 * m * e + 2 * r * e;
  const double t = static_cast<double>(T);
  double mixing = ddts_flops(T, c.mem_size, c.d_inner()) / t;
  if (block_type(c.block).reads("n_heads")) {
    const double heads_k = static_cast<double>(c.n_heads_k * c.head_dim());
    const double heads_v = static_cast<double>(c.heads_v() * c.head_dim());
    weights += d * (d + heads_k + heads_v + d) + 3 * d * static_cast<double>(c.d_ff());
    mixing += ska_flops(T, T, c.d_model, c.left()) / t;  // averaged over positions
  }
  const double head = d * static_cast<double>(c.vocab_size);
  return static_cast<double>(c.n_layers) * (2 * weights + mixing) + 2 * head;
}

}  // namespace rodimus
