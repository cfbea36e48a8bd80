#include "layers/ffn.h"

namespace rodimus {

void Ffn::check(const ModelConfig& c) {
  if (!(c.ffn_ratio > 0 && c.ffn_ratio <= 64))
    fail("model.ffn_ratio = ", c.ffn_ratio, ": must be in (0, 64]");
}

Ffn::Ffn(const ModelConfig& config, const std::string& prefix, Init residual)
    : d_ff(config.d_ff()),
      fc(prefix + "fc.weight", {2 * d_ff, config.d_model}, {Init::Kind::normal, 0.02}, Decay::yes),
      out_proj(prefix + "out_proj.weight", {config.d_model, d_ff}, residual, Decay::yes) {}

Var Ffn::forward(Context& ctx, const Var& x, LinearOutput output) const {
  const Var u = linear(ctx, x, fc.operand(ctx), {0, d_ff});
  const Var z = linear(ctx, x, fc.operand(ctx), {d_ff, 2 * d_ff});
  return linear(ctx, swiglu(ctx, u, z), out_proj.operand(ctx), {}, output);
}

void Ffn::collect(std::vector<Parameter*>& into) { into.insert(into.end(), {&fc, &out_proj}); }

}  // namespace rodimus
