// The two blocks of arXiv:2410.06577.
#pragma once

#include <string>
#include <vector>

#include "layers/attention.h"
#include "layers/ffn.h"
#include "layers/mixer.h"

namespace rodimus {

// x = x + mixer(rms_norm(x))
class RodimusBlock : public Block {
 public:
  RodimusBlock(const ModelConfig& config, const std::string& prefix);
  Stream forward(Context& ctx, const Stream& stream, const Pass& pass) const override;
  void collect(std::vector<Parameter*>& into) override;

  float norm_eps;
  Parameter mixer_norm;  // (d)
  Mixer mixer;
};

// s = x + mixer(rms_norm(x));  x = s + ffn(rms_norm(s + attention(rms_norm(s)))): a two-hop
// residual, attention reaches the stream only through the FFN.
class RodimusPlusBlock : public Block {
 public:
  RodimusPlusBlock(const ModelConfig& config, const std::string& prefix);
  Stream forward(Context& ctx, const Stream& stream, const Pass& pass) const override;
  void collect(std::vector<Parameter*>& into) override;

  float norm_eps;
  Parameter mixer_norm;  // (d)
  Mixer mixer;
  Parameter attn_norm;  // (d)
  Attention attn;
  Parameter ffn_norm;  // (d)
  Ffn ffn;
};

}  // namespace rodimus
