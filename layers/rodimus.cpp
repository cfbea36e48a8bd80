#include "layers/rodimus.h"

#include "layers/blocks.h"

namespace rodimus {
namespace {

constexpr int kPlusBranches = 3;

Parameter norm_weight(const ModelConfig& config, const std::string& name) {
  return {name, {config.d_model}, {Init::Kind::ones}, Decay::no};
}

}  // namespace

RodimusBlock::RodimusBlock(const ModelConfig& config, const std::string& prefix)
    : norm_eps(static_cast<float>(config.norm_eps)),
      mixer_norm(norm_weight(config, prefix + "mixer_norm.weight")),
      mixer(config, prefix + "mixer.", residual_init(config, 1)) {}

Stream RodimusBlock::forward(Context& ctx, const Stream& stream, const Pass& pass) const {
  const ResidualNorm in = residual_norm(ctx, stream.x, stream.branch, mixer_norm.var, norm_eps);
  return {in.sum, mixer.forward(ctx, in.norm, pass, last_output(ctx))};
}

void RodimusBlock::collect(std::vector<Parameter*>& into) {
  into.push_back(&mixer_norm);
  mixer.collect(into);
}

RodimusPlusBlock::RodimusPlusBlock(const ModelConfig& config, const std::string& prefix)
    : norm_eps(static_cast<float>(config.norm_eps)),
      mixer_norm(norm_weight(config, prefix + "mixer_norm.weight")),
      mixer(config, prefix + "mixer.", residual_init(config, kPlusBranches)),
      attn_norm(norm_weight(config, prefix + "attn_norm.weight")),
      attn(config, prefix + "attn.", residual_init(config, kPlusBranches)),
      ffn_norm(norm_weight(config, prefix + "ffn_norm.weight")),
      ffn(config, prefix + "ffn.", residual_init(config, kPlusBranches)) {}

Stream RodimusPlusBlock::forward(Context& ctx, const Stream& stream, const Pass& pass) const {
  const ResidualNorm first = residual_norm(ctx, stream.x, stream.branch, mixer_norm.var, norm_eps);
  const Var mixed = mixer.forward(ctx, first.norm, pass, LinearOutput::plain);
  const ResidualNorm second = residual_norm(ctx, first.sum, mixed, attn_norm.var, norm_eps);
  const Var attended = attn.forward(ctx, second.norm, pass);
  const ResidualNorm third = residual_norm(ctx, second.sum, attended, ffn_norm.var, norm_eps);
  return {second.sum, ffn.forward(ctx, third.norm, last_output(ctx))};
}

void RodimusPlusBlock::collect(std::vector<Parameter*>& into) {
  into.push_back(&mixer_norm);
  mixer.collect(into);
  into.push_back(&attn_norm);
  attn.collect(into);
  into.push_back(&ffn_norm);
  ffn.collect(into);
}

namespace {

constexpr std::string_view kKeys[] = {"mem_size",     "conv_width", "expand",    "gate_rank",
                                      "key_norm_eps", "n_heads",    "n_heads_k", "n_heads_v",
                                      "window",       "ffn_ratio",  "rope_base"};
constexpr size_t kMixerKeys = 5;  // the first ones

}  // namespace

const BlockType kRodimus{
    "rodimus", "Rodimus", std::span(kKeys).first(kMixerKeys), Mixer::check,
    [](const ModelConfig& config, const std::string& prefix) {
      return std::unique_ptr<Block>(std::make_unique<RodimusBlock>(config, prefix));
    }};

const BlockType kRodimusPlus{
    "rodimus_plus", "Rodimus+", kKeys,
    [](const ModelConfig& config) {
      Mixer::check(config);
      Attention::check(config);
      Ffn::check(config);
    },
    [](const ModelConfig& config, const std::string& prefix) {
      return std::unique_ptr<Block>(std::make_unique<RodimusPlusBlock>(config, prefix));
    }};

}  // namespace rodimus
