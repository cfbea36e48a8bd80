// Sliding-window shared-key attention with rotary positions. Equations in docs/tour.md.
#pragma once

#include <string>
#include <vector>

#include "layers/block.h"

namespace rodimus {

struct Attention {
  // `residual`: how out_proj starts. The config is one that check() has passed.
  Attention(const ModelConfig& config, const std::string& prefix, Init residual);
  Var forward(Context& ctx, const Var& x, const Pass& pass) const;
  void collect(std::vector<Parameter*>& into);

  // Throws Error that names the key, its value and what would be possible.
  static void check(const ModelConfig& config);

  ModelConfig config;
  Parameter q_proj, k_proj, v_proj, out_proj;  // (d, d), (Hk D, d), (Hv D, d), (d, d)
};

}  // namespace rodimus
