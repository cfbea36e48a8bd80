// The token mixer of Rodimus: y = W_out gated_norm(DDTS(conv(h)), ...). Equations in docs/tour.md;
// arXiv:2410.06577, section 3.
#pragma once

#include <string>
#include <vector>

#include "layers/block.h"

namespace rodimus {

struct Mixer {
  // `residual`: initialisation of out_proj. The config must have passed check().
  Mixer(const ModelConfig& config, const std::string& prefix, Init residual);
  Var forward(Context& ctx, const Var& x, const Pass& pass, LinearOutput output) const;
  void collect(std::vector<Parameter*>& into);

  // Throws Error naming the key, its value and what is allowed.
  static void check(const ModelConfig& config);

  ModelConfig config;
  Parameter fc;                      // (2e, d): rows [0,e) make h, [e,2e) the output gate
  Parameter conv_weight, conv_bias;  // (e, 1, width), (e)
  Parameter in_proj;                 // (2m, e): q, k
  Parameter gate_weight, gate_bias;  // (2m, e), (2m): selection and temperature
  Parameter value_down;              // (r, e)
  Parameter value_up, value_bias;    // (e, r), (e)
  Parameter residual_weight;         // (e)
  Parameter act_norm;                // (e)
  Parameter out_proj;                // (d, e)
};

}  // namespace rodimus
