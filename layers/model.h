// The language model: embedding, blocks, final norm, head.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "layers/block.h"

namespace rodimus {

// The recurrent state of one sequence: constant in size with a window.
struct ModelState {
  std::vector<BlockState> blocks;
  int64_t position = 0;  // tokens consumed
};

class Model {
 public:
  using FinalFrom = std::function<void(int64_t begin)>;

  // Parameters are allocated but not set: call initialize() or load a checkpoint (then
  // refresh_bf16_copy()). `grads` false: inference.
  Model(ModelConfig config, Exec& exec, DType compute, bool grads);

  // Cross-entropy of targets (B,T) given ids (B,T), per position, natural log; 0 where the target
  // is kIgnoreTarget. With a tape the gradients are those of scale * sum(losses). starts as in
  // Pass. recompute_blocks trades a second forward for activation memory. Backward
  // tells `final_from` how many gradients are final, that is when what is queued has run:
  // parameters().grads from `begin` on, with ever smaller `begin`. All are at its end.
  Tensor losses(Context& ctx, const Tensor& ids, const Tensor& targets, const Tensor& starts,
                float scale, bool recompute_blocks = false, const FinalFrom& final_from = {});

  // Inference: the same losses for ids (1,T) that continue a sequence. Advances the state.
  Tensor losses(Context& ctx, const Tensor& ids, const Tensor& targets, ModelState& state);

  // Inference: logits (B,T,vocab) f32, from the beginning of a sequence.
  Tensor logits(Context& ctx, const Tensor& ids);
  // Inference: logits (1,1,vocab) f32 of the last of ids (1,T), continuing from and advancing
  // `state`.
  Tensor next_logits(Context& ctx, const Tensor& ids, ModelState& state);

  const ModelConfig& config() const { return config_; }
  ParameterBuffers& parameters() { return buffers_; }

 private:
  Var hidden(Context& ctx, const Tensor& ids, const Tensor& starts, ModelState* state,
             bool recompute_blocks, const FinalFrom& final_from = {});
  const Parameter& head() const { return config_.tied ? embeddings_ : *lm_head_; }

  ModelConfig config_;
  Parameter embeddings_;  // (vocab, d)
  std::vector<std::unique_ptr<Block>> blocks_;
  Parameter norm_f_;                    // (d)
  std::unique_ptr<Parameter> lm_head_;  // (vocab, d), unless tied
  ParameterBuffers buffers_;
};

}  // namespace rodimus
