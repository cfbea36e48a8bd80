// The gated feed-forward layer: W_out (silu(z) * u), (u, z) = W_fc x.
#pragma once

#include <string>
#include <vector>

#include "layers/block.h"

namespace rodimus {

struct Ffn {
  // `residual`: initialisation of out_proj. The config must have passed check().
  Ffn(const ModelConfig& config, const std::string& prefix, Init residual);
  Var forward(Context& ctx, const Var& x, LinearOutput output) const;
  void collect(std::vector<Parameter*>& into);

  // Throws Error naming the key, its value and what is allowed.
  static void check(const ModelConfig& config);

  int64_t d_ff;
  Parameter fc, out_proj;  // (2f, d), (d, f)
};

}  // namespace rodimus
