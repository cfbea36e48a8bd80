#include "layers/model.h"

#include "layers/blocks.h"

namespace rodimus {
namespace {

// Backward reaches the mark when everything recorded after it is done.
void mark_final(Tape& tape, int64_t begin, const Model::FinalFrom& final_from) {
  tape.mark([begin, final_from](Context&) { final_from(begin); });
}

}  // namespace

Model::Model(ModelConfig config, Exec& exec, DType compute, bool grads)
    : config_((config.validate(), config)),
      embeddings_("model.embeddings.weight", {config.vocab_size, config.d_model},
                  {Init::Kind::normal, 0.02},
                  // An untied embedding is a lookup table, not a projection: decay would only
                  // shrink the vectors of rare tokens.
                  config.tied ? Decay::yes : Decay::no),
      norm_f_("model.norm_f.weight", {config.d_model}, {Init::Kind::ones}, Decay::no) {
  std::vector<std::vector<Parameter*>> groups{{&embeddings_}};
  for (int64_t i = 0; i < config_.n_layers; ++i) {
    blocks_.push_back(block_type(config_.block).make(config_, concat("model.layers.", i, ".")));
    blocks_.back()->collect(groups.emplace_back());
  }
  groups.push_back({&norm_f_});
  if (!config_.tied) {
    lm_head_ =
        std::make_unique<Parameter>("lm_head.weight", Shape{config_.vocab_size, config_.d_model},
                                    Init{Init::Kind::normal, 0.02}, Decay::yes);
    groups.push_back({lm_head_.get()});
  }
  buffers_ = allocate_parameters(exec, groups, compute, grads);
}

Var Model::hidden(Context& ctx, const Tensor& ids, const Tensor& starts, ModelState* state,
                  bool recompute_blocks, const FinalFrom& final_from) {
  if (state && state->blocks.empty()) state->blocks.resize(blocks_.size());
  Stream stream{embedding(ctx, ids, embeddings_.var), {}};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Pass pass{starts, state ? &state->blocks[i] : nullptr, state ? state->position : 0};
    if (ctx.tape && final_from) mark_final(*ctx.tape, buffers_.groups[1 + i], final_from);
    if (!recompute_blocks) {
      stream = blocks_[i]->forward(ctx, stream, pass);
      continue;
    }
    const auto segment = [block = blocks_[i].get(), pass](Context& inner,
                                                          const std::vector<Var>& in) {
      const Stream out = block->forward(inner, {in[0], in[1]}, pass);
      return std::vector<Var>{out.x, out.branch};
    };
    const std::vector<Var> out = recompute(ctx, {stream.x, stream.branch}, segment);
    stream = {out[0], out[1]};
  }
  if (state) state->position += ids.dim(1);
  return residual_norm(ctx, stream.x, stream.branch, norm_f_.var,
                       static_cast<float>(config_.norm_eps))
      .norm;
}

Tensor Model::losses(Context& ctx, const Tensor& ids, const Tensor& targets, const Tensor& starts,
                     float scale, bool recompute_blocks, const FinalFrom& final_from) {
  check_shape("Model::losses: targets", targets, ids.shape());
  const Var x = hidden(ctx, ids, starts, nullptr, recompute_blocks, final_from);
  if (ctx.tape && final_from && lm_head_) mark_final(*ctx.tape, lm_head_->offset, final_from);
  return head_loss(ctx, x, head().operand(ctx), targets, scale);
}

Tensor Model::losses(Context& ctx, const Tensor& ids, const Tensor& targets, ModelState& state) {
  CHECK(ctx.tape == nullptr, "Model::losses: a carried state is for inference");
  check_shape("Model::losses: targets", targets, ids.shape());
  const Var x = hidden(ctx, ids, {}, &state, false);
  return head_loss(ctx, x, head().operand(ctx), targets, 0);
}

Tensor Model::logits(Context& ctx, const Tensor& ids) {
  CHECK(ctx.tape == nullptr, "Model::logits: for inference");
  const Var x = hidden(ctx, ids, {}, nullptr, false);
  return linear(ctx, x, head().operand(ctx), {}, LinearOutput::f32).value;
}

Tensor Model::next_logits(Context& ctx, const Tensor& ids, ModelState& state) {
  CHECK(ctx.tape == nullptr && ids.dim(0) == 1,
        "Model::next_logits: for inference on one sequence");
  const Var x = hidden(ctx, ids, {}, &state, false);
  const int64_t T = ids.dim(1), d = config_.d_model;
  const Var last{x.value.view({T, d}).rows(T - 1, T).view({1, 1, d}), nullptr};
  return linear(ctx, last, head().operand(ctx), {}, LinearOutput::f32).value;
}

}  // namespace rodimus
