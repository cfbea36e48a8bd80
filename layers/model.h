// The language model: embedding, blocks, final norm, head.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "layers/block.h"

namespace rodimus {

// The recurrent state of one sequence; of constant size when the model has a window.
struct ModelState {
  std::vector<BlockState> blocks;
  int64_t position = 0;  // tokens consumed
};

class Model {
 public:
  using FinalFrom = std::function<void(int64_t begin)>;

  // Parameters are allocated but not set: call initialize(), or load a checkpoint and then call
  // refresh_bf16_copy(). `grads` false: inference.
  Model(ModelConfig config, Exec& exec, DType compute, bool grads);

  // Cross-entropy of targets (B,T) given ids (B,T), per position, natural log; 0 where the target
  // is kIgnoreTarget. With a tape, gradients are those of scale * sum(losses). `starts` as in Pass.
  // recompute_blocks saves activation memory at the price of a second forward pass. Backward calls
  // `final_from` with ever smaller `begin`: parameters().grads from `begin` on is final once the
  // work queued so far has run. At the end of backward all gradients are final.
  Tensor losses(Context& ctx, const Tensor& ids, const Tensor& targets, const Tensor& starts,
                float scale, bool recompute_blocks = false, const FinalFrom& final_from = {});

  // Inference: the same losses for ids (1,T) that continue a sequence. Advances the state.
  Tensor losses(Context& ctx, const Tensor& ids, const Tensor& targets, ModelState& state);

  // Inference: logits (B,T,vocab) f32, from the beginning of a sequence.
  Tensor logits(Context& ctx, const Tensor& ids);
  // Inference: logits (1,1,vocab) f32 of the last token of ids (1,T). Continues from `state` and
  // advances it.
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
