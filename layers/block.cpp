#include "layers/block.h"

#include <cmath>

namespace rodimus {
namespace {

constexpr Init kNormal{Init::Kind::normal, 0.02};
constexpr Init kOnes{Init::Kind::ones};
constexpr Init kZeros{Init::Kind::zeros};

// Projections back into the stream are divided by sqrt(n * n_layers), n = branches per block.
Init residual_init(const ModelConfig& config) {
  const double branches = config.plus() ? 3 : 1;
  return {Init::Kind::normal, 0.02, std::sqrt(branches * static_cast<double>(config.n_layers))};
}

}  // namespace

Ffn::Ffn(const ModelConfig& config, const std::string& prefix)
    : d_ff(config.d_ff()),
      fc(prefix + "fc.weight", {2 * d_ff, config.d_model}, kNormal),
      out_proj(prefix + "out_proj.weight", {config.d_model, d_ff}, residual_init(config)) {}

Var Ffn::forward(Context& ctx, const Var& x, LinearOutput output) const {
  const Var u = linear(ctx, x, fc.operand(ctx), {0, d_ff});
  const Var z = linear(ctx, x, fc.operand(ctx), {d_ff, 2 * d_ff});
  return linear(ctx, swiglu(ctx, u, z), out_proj.operand(ctx), {}, output);
}

void Ffn::collect(std::vector<Parameter*>& into) { into.insert(into.end(), {&fc, &out_proj}); }

Block::Block(const ModelConfig& config, int64_t index)
    : norm_eps(static_cast<float>(config.norm_eps)),
      mixer_norm("model.layers." + std::to_string(index) + ".mixer_norm.weight", {config.d_model},
                 kOnes),
      mixer(config, "model.layers." + std::to_string(index) + ".mixer.") {
  if (!config.plus()) return;
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  plus.emplace(Plus{Parameter(prefix + "attn_norm.weight", {config.d_model}, kOnes),
                    Attention(config, prefix + "attn."),
                    Parameter(prefix + "ffn_norm.weight", {config.d_model}, kOnes),
                    Ffn(config, prefix + "ffn.")});
}

Stream Block::forward(Context& ctx, const Stream& stream, const Pass& pass) const {
  const ResidualNorm first = residual_norm(ctx, stream.x, stream.branch, mixer_norm.var, norm_eps);
  // The product that ends the block; in Rodimus+ the mixer's is read by the next norm.
  const LinearOutput last = ctx.replay ? LinearOutput::unread : LinearOutput::plain;
  const Var mixed = mixer.forward(ctx, first.norm, pass, plus ? LinearOutput::plain : last);
  if (!plus) return {first.sum, mixed};
  // Two-hop residual: attention reaches the stream only through the FFN.
  const ResidualNorm second = residual_norm(ctx, first.sum, mixed, plus->attn_norm.var, norm_eps);
  const Var attended = plus->attn.forward(ctx, second.norm, pass);
  const ResidualNorm third = residual_norm(ctx, second.sum, attended, plus->ffn_norm.var, norm_eps);
  return {second.sum, plus->ffn.forward(ctx, third.norm, last)};
}

void Block::collect(std::vector<Parameter*>& into) {
  into.push_back(&mixer_norm);
  mixer.collect(into);
  if (!plus) return;
  into.push_back(&plus->attn_norm);
  plus->attn.collect(into);
  into.push_back(&plus->ffn_norm);
  plus->ffn.collect(into);
}

Attention::Attention(const ModelConfig& c, const std::string& prefix)
    : config(c),
      q_proj(prefix + "q_proj.weight", {c.d_model, c.d_model}, kNormal),
      k_proj(prefix + "k_proj.weight", {c.n_heads_k * c.head_dim(), c.d_model}, kNormal),
      v_proj(prefix + "v_proj.weight", {c.heads_v() * c.head_dim(), c.d_model}, kNormal),
      out_proj(prefix + "out_proj.weight", {c.d_model, c.d_model}, residual_init(c)) {}

void Attention::collect(std::vector<Parameter*>& into) {
  into.insert(into.end(), {&q_proj, &k_proj, &v_proj, &out_proj});
}

Mixer::Mixer(const ModelConfig& c, const std::string& prefix)
    : config(c),
      fc(prefix + "fc.weight", {2 * c.d_inner(), c.d_model}, kNormal),
      // PyTorch's Conv1d default: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), fan_in = width for a
      // depthwise convolution
      conv_weight(prefix + "inner_mixer.short_conv.conv1d.weight", {c.d_inner(), 1, c.conv_width},
                  {Init::Kind::uniform, 1 / std::sqrt(static_cast<double>(c.conv_width))}),
      conv_bias(prefix + "inner_mixer.short_conv.conv1d.bias", {c.d_inner()},
                {Init::Kind::uniform, 1 / std::sqrt(static_cast<double>(c.conv_width))}),
      in_proj(prefix + "inner_mixer.in_proj.weight", {2 * c.mem_size, c.d_inner()},
              {Init::Kind::xavier_uniform, std::exp2(-2.5)}),
      gate_weight(prefix + "inner_mixer.mem_gate_proj.weight", {2 * c.mem_size, c.d_inner()},
                  {Init::Kind::xavier_uniform, std::exp2(-2.5)}),
      gate_bias(prefix + "inner_mixer.mem_gate_proj.bias", {2 * c.mem_size},
                {Init::Kind::memory_gate}),
      value_down(prefix + "inner_mixer.ch_gate_proj.0.weight", {c.rank(), c.d_inner()},
                 {Init::Kind::xavier_uniform, std::exp2(-2.5)}),
      value_up(prefix + "inner_mixer.ch_gate_proj.1.weight", {c.d_inner(), c.rank()},
               {Init::Kind::xavier_uniform, std::exp2(-2.5)}),
      value_bias(prefix + "inner_mixer.ch_gate_proj.1.bias", {c.d_inner()}, kZeros),
      residual_weight(prefix + "inner_mixer.residual_weight", {c.d_inner()}, kOnes),
      act_norm(prefix + "act_norm.weight", {c.d_inner()}, kOnes),
      out_proj(prefix + "out_proj.weight", {c.d_model, c.d_inner()}, residual_init(c)) {}

void Mixer::collect(std::vector<Parameter*>& into) {
  into.insert(into.end(),
              {&fc, &conv_weight, &conv_bias, &in_proj, &gate_weight, &gate_bias, &value_down,
               &value_up, &value_bias, &residual_weight, &act_norm, &out_proj});
}

}  // namespace rodimus
