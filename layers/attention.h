// Sliding-window shared-key attention with rotary positions. Equations in docs/tour.md.
#pragma once

#include <string>
#include <vector>

#include "layers/block.h"

namespace rodimus {

struct Attention {
  // `residual`: initialisation of out_proj. The config must have passed check().
  Attention(const ModelConfig& config, const std::string& prefix, Init residual);
  Var forward(Context& ctx, const Var& x, const Pass& pass) const;
  void collect(std::vector<Parameter*>& into);

  // Throws Error naming the key, its value and what is allowed.
  static void check(const ModelConfig& config);

  ModelConfig config;
  Parameter q_proj, k_proj, v_proj, out_proj;  // (d, d), (Hk D, d), (Hv D, d), (d, d)
};

}  // namespace rodimus
