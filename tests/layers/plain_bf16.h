// The model as computed by a plain bf16 implementation: parameters, the residual stream, the result
// of every op and every gradient are rounded to bf16; sums are f32 (PyTorch after
// model.bfloat16()). It is the yardstick for the error of our bf16 path. Fused ops round only their
// results, so the yardstick is stricter than a program that also stores the steps inside them.
#pragma once

#include <memory>
#include <vector>

#include "kernels/head_loss.h"
#include "layers/rodimus.h"
#include "tests/support/bf16_criterion.h"
#include "tests/support/golden.h"

namespace rodimus::testing {

inline void round_to_bf16(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = stored(x[i]);
}

inline Tensor rounded_copy(const Tensor& x) {
  Tensor y = Tensor::empty(x.shape(), DType::f32);
  std::copy_n(x.data<float>(), x.numel(), y.data<float>());
  round_to_bf16(y.data<float>(), y.numel());
  return y;
}

// bf16(x), or bf16(x + y) if y is defined; the gradient is rounded on the way back.
inline Var rounded(Context& ctx, const Var& x, const Var& y = {}) {
  Tensor sum = Tensor::empty(x.value.shape(), DType::f32);
  for (int64_t i = 0; i < sum.numel(); ++i) {
    const float other = y.value.defined() ? y.value.data<float>()[i] : 0.0f;
    sum.data<float>()[i] = x.value.data<float>()[i] + other;
  }
  round_to_bf16(sum.data<float>(), sum.numel());
  Var result = make_output(ctx, sum);
  if (!ctx.tape) return result;
  const auto backward = [to_x = x.slot, to_y = y.slot](Context& inner, std::span<Tensor> dy) {
    to_x->add(inner, rounded_copy(dy[0]));
    if (to_y) to_y->add(inner, rounded_copy(dy[0]));
  };
  ctx.tape->record({"rounded"}, {result.slot}, backward);
  return result;
}

class PlainBf16 {
 public:
  PlainBf16(const ModelConfig& config, const Golden& golden)
      : config_(config),
        embeddings_("model.embeddings.weight", {config.vocab_size, config.d_model}, {}, Decay::no),
        norm_f_("model.norm_f.weight", {config.d_model}, {}, Decay::no),
        lm_head_("lm_head.weight", {config.vocab_size, config.d_model}, {}, Decay::no) {
    std::vector<Parameter*> all{&embeddings_, &norm_f_};
    if (!config.tied) all.push_back(&lm_head_);
    for (int64_t i = 0; i < config.n_layers; ++i) {
      const std::string prefix = concat("model.layers.", i, ".");
      if (config.block == "rodimus") {
        blocks_.push_back(std::make_unique<RodimusBlock>(config, prefix));
      } else {
        blocks_.push_back(std::make_unique<RodimusPlusBlock>(config, prefix));
      }
      blocks_.back()->collect(all);
    }
    buffers_ = allocate_parameters(ctx_.exec, {std::move(all)}, DType::f32, /*grads=*/true);
    for (Parameter* p : buffers_.parameters) {
      const std::vector<float> values = golden.f32("params/" + p->name);
      CHECK(static_cast<int64_t>(values.size()) == numel_of(p->shape), p->name);
      std::copy(values.begin(), values.end(), p->var.value.data<float>());
    }
    round_to_bf16(buffers_.values.data<float>(), buffers_.values.numel());
  }

  Tensor logits(const Tensor& ids) { return logits(ctx_, ids).value; }

  // Losses per position; afterwards grad() has the gradients of their mean.
  Tensor run(const Tensor& ids, const Tensor& targets) {
    Tape tape;
    Context recording{ctx_.exec, DType::f32, &tape};
    const Var z = logits(recording, ids);
    const int64_t rows = targets.numel();
    Tensor losses = Tensor::empty({rows}, DType::f32), dz = empty_like(z.value);
    cross_entropy(std::get<Cpu>(ctx_.exec), losses.data<float>(), dz.data<float>(),
                  z.value.data<float>(), targets.data<int32_t>(), 1 / static_cast<float>(rows),
                  rows, config_.vocab_size);
    tape.backward(recording, {{z.slot, dz}});
    round_to_bf16(buffers_.grads.data<float>(), buffers_.grads.numel());
    return losses;
  }

  Tensor grad(const std::string& name) const {
    for (const Parameter* p : buffers_.parameters)
      if (p->name == name) return buffers_.grads.slice(p->offset, p->shape);
    fail("no parameter ", name);
  }

 private:
  Var norm(Context& ctx, const Var& x, const Parameter& w) const {
    return rounded(ctx,
                   residual_norm(ctx, x, {}, w.var, static_cast<float>(config_.norm_eps)).norm);
  }
  static Var project(Context& ctx, const Var& x, const Parameter& w, RowRange rows = {}) {
    return rounded(ctx, linear(ctx, x, w.var, rows));
  }

  Var mixer(Context& ctx, const Mixer& m, const Var& x) const {
    const int64_t e = config_.d_inner();
    const Var h = project(ctx, x, m.fc, {0, e}), gate = project(ctx, x, m.fc, {e, 2 * e});
    const Var c = rounded(ctx, short_conv(ctx, h, m.conv_weight.var, m.conv_bias.var, {}, {}));
    const DdtsOperands in =
        ddts_gates(ctx, project(ctx, c, m.in_proj), project(ctx, c, m.gate_weight), m.gate_bias.var,
                   static_cast<float>(config_.key_norm_eps));
    const Var value_gate = project(ctx, project(ctx, h, m.value_down), m.value_up);
    const Var v = rounded(ctx, sigmoid_gate(ctx, value_gate, m.value_bias.var, h));
    const Var o = rounded(
        ctx, ddts(ctx, rounded(ctx, in.q), rounded(ctx, in.k), v, rounded(ctx, in.g), {}).o);
    const Var y = gated_norm(ctx, o, c, m.residual_weight.var, gate, m.act_norm.var,
                             static_cast<float>(config_.norm_eps));
    return project(ctx, rounded(ctx, y), m.out_proj);
  }

  Var attention(Context& ctx, const Attention& a, const Var& x) const {
    const int64_t B = x.value.dim(0), T = x.value.dim(1), D = config_.head_dim();
    const auto heads = [&](const Parameter& w, int64_t count) {
      Var y = project(ctx, x, w);
      y.value = y.value.view({B, T, count, D});
      return y;
    };
    const auto turned = [&](const Var& y) {
      return rounded(ctx, rotary(ctx, y, static_cast<float>(config_.rope_base), 0));
    };
    Var o = rounded(ctx, ska(ctx, turned(heads(a.q_proj, config_.n_heads)),
                             turned(heads(a.k_proj, config_.n_heads_k)),
                             heads(a.v_proj, config_.heads_v()), config_.left(), {}));
    o.value = o.value.view({B, T, config_.d_model});
    return project(ctx, o, a.out_proj);
  }

  static Var ffn(Context& ctx, const Ffn& f, const Var& x) {
    const Var u = project(ctx, x, f.fc, {0, f.d_ff});
    const Var z = project(ctx, x, f.fc, {f.d_ff, 2 * f.d_ff});
    return project(ctx, rounded(ctx, swiglu(ctx, u, z)), f.out_proj);
  }

  Var logits(Context& ctx, const Tensor& ids) const {
    Var x = rounded(ctx, embedding(ctx, ids, embeddings_.var));
    for (const auto& block : blocks_) {
      if (const auto* own = dynamic_cast<const RodimusBlock*>(block.get())) {
        x = rounded(ctx, x, mixer(ctx, own->mixer, norm(ctx, x, own->mixer_norm)));
        continue;
      }
      const auto& plus = dynamic_cast<const RodimusPlusBlock&>(*block);
      x = rounded(ctx, x, mixer(ctx, plus.mixer, norm(ctx, x, plus.mixer_norm)));
      // Two-hop residual: attention reaches the stream only through the FFN.
      const Var hop = rounded(ctx, x, attention(ctx, plus.attn, norm(ctx, x, plus.attn_norm)));
      x = rounded(ctx, x, ffn(ctx, plus.ffn, norm(ctx, hop, plus.ffn_norm)));
    }
    return project(ctx, norm(ctx, x, norm_f_), config_.tied ? embeddings_ : lm_head_);
  }

  ModelConfig config_;
  Context ctx_{Cpu{2}, DType::f32, nullptr};
  Parameter embeddings_;
  std::vector<std::unique_ptr<Block>> blocks_;
  Parameter norm_f_, lm_head_;
  ParameterBuffers buffers_;
};

}  // namespace rodimus::testing
