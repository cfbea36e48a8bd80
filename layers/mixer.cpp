// The forward pass of the mixer, with its carried state.
#include "layers/mixer.h"

#include <algorithm>
#include <cmath>

#include "layers/rows.h"

namespace rodimus {
namespace {

// The last `keep` rows of old ++ fresh in a new tensor, with zeros in front when there are fewer.
Tensor last_rows(Context& ctx, const Tensor& old, const Tensor& fresh,
                 int64_t keep) {  // (1, rows, e)
  const int64_t e = fresh.dim(2), count = fresh.dim(1),
                from_old = std::max<int64_t>(keep - count, 0);
  Tensor result = Tensor::empty({keep, e}, fresh.dtype(), ctx.device());
  copy_rows(ctx, result, 0, old.view({keep, e}), keep - from_old, from_old);
  copy_rows(ctx, result, from_old, fresh.view({count, e}), std::max<int64_t>(count - keep, 0),
            keep - from_old);
  return result.view({1, keep, e});
}

Tensor zeros_of(Context& ctx, Shape shape, DType dtype) {
  return convert_to(ctx.exec, zeros(ctx.exec, std::move(shape)), dtype);
}

}  // namespace

void Mixer::check(const ModelConfig& c) {
  check_size("mem_size", c.mem_size, 1);
  check_size("conv_width", c.conv_width, 1, kMaxConvWidth);
  check_size("gate_rank", c.gate_rank, 0);
  if (!(c.expand > 0 && c.expand <= 64)) fail("model.expand = ", c.expand, ": must be in (0, 64]");
  if (!(c.key_norm_eps > 0)) fail("model.key_norm_eps = ", c.key_norm_eps, ": must be positive");
}

Mixer::Mixer(const ModelConfig& c, const std::string& prefix, Init residual)
    : config(c),
      fc(prefix + "fc.weight", {2 * c.d_inner(), c.d_model}, {Init::Kind::normal, 0.02},
         Decay::yes),
      // PyTorch's Conv1d default: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), fan_in = width for a
      // depthwise convolution
      conv_weight(prefix + "inner_mixer.short_conv.conv1d.weight", {c.d_inner(), 1, c.conv_width},
                  {Init::Kind::uniform, 1 / std::sqrt(static_cast<double>(c.conv_width))},
                  Decay::yes),
      conv_bias(prefix + "inner_mixer.short_conv.conv1d.bias", {c.d_inner()},
                {Init::Kind::uniform, 1 / std::sqrt(static_cast<double>(c.conv_width))}, Decay::no),
      in_proj(prefix + "inner_mixer.in_proj.weight", {2 * c.mem_size, c.d_inner()},
              {Init::Kind::xavier_uniform, std::exp2(-2.5)}, Decay::yes),
      gate_weight(prefix + "inner_mixer.mem_gate_proj.weight", {2 * c.mem_size, c.d_inner()},
                  {Init::Kind::xavier_uniform, std::exp2(-2.5)}, Decay::yes),
      gate_bias(prefix + "inner_mixer.mem_gate_proj.bias", {2 * c.mem_size},
                {Init::Kind::memory_gate}, Decay::no),
      value_down(prefix + "inner_mixer.ch_gate_proj.0.weight", {c.value_gate_rank(), c.d_inner()},
                 {Init::Kind::xavier_uniform, std::exp2(-2.5)}, Decay::yes),
      value_up(prefix + "inner_mixer.ch_gate_proj.1.weight", {c.d_inner(), c.value_gate_rank()},
               {Init::Kind::xavier_uniform, std::exp2(-2.5)}, Decay::yes),
      value_bias(prefix + "inner_mixer.ch_gate_proj.1.bias", {c.d_inner()}, {Init::Kind::zeros},
                 Decay::no),
      residual_weight(prefix + "inner_mixer.residual_weight", {c.d_inner()}, {Init::Kind::ones},
                      Decay::no),
      act_norm(prefix + "act_norm.weight", {c.d_inner()}, {Init::Kind::ones}, Decay::no),
      out_proj(prefix + "out_proj.weight", {c.d_model, c.d_inner()}, residual, Decay::yes) {}

void Mixer::collect(std::vector<Parameter*>& into) {
  into.insert(into.end(),
              {&fc, &conv_weight, &conv_bias, &in_proj, &gate_weight, &gate_bias, &value_down,
               &value_up, &value_bias, &residual_weight, &act_norm, &out_proj});
}

Var Mixer::forward(Context& ctx, const Var& x, const Pass& pass, LinearOutput output) const {
  const int64_t e = config.d_inner(), m = config.mem_size, width = config.conv_width;
  const Var h = linear(ctx, x, fc.operand(ctx), {0, e});         // (B,T,e)
  const Var gate = linear(ctx, x, fc.operand(ctx), {e, 2 * e});  // (B,T,e)

  Tensor history;
  BlockState* state = pass.state;
  if (state) {
    CHECK(x.value.dim(0) == 1, "mixer: a carried state is for one sequence, got ", x.value.dim(0));
    if (!state->conv_history.defined()) {
      state->conv_history = zeros_of(ctx, {1, width - 1, e}, ctx.compute);
      state->memory = zeros(ctx.exec, {1, m, e});
    }
    history = state->conv_history;
  }
  const Var c = short_conv(ctx, h, conv_weight.var, conv_bias.var, history, pass.starts);
  if (state) state->conv_history = last_rows(ctx, history, h.value, width - 1);

  const Var qk = linear(ctx, c, in_proj.operand(ctx));         // (B,T,2m)
  const Var gates = linear(ctx, c, gate_weight.operand(ctx));  // (B,T,2m)
  const auto [q, k, g] =
      ddts_gates(ctx, qk, gates, gate_bias.var, static_cast<float>(config.key_norm_eps));

  const Var down = linear(ctx, h, value_down.operand(ctx));  // (B,T,r)
  const Var v = sigmoid_gate(ctx, linear(ctx, down, value_up.operand(ctx)), value_bias.var,
                             h);  // reads h, not c

  const DdtsResult memory =
      state ? ddts(ctx, q, k, v, g, pass.starts, {state->memory, nullptr}, FinalState::wanted)
            : ddts(ctx, q, k, v, g, pass.starts);
  if (state) state->memory = memory.state.value;
  const Var y = gated_norm(ctx, memory.o, c, residual_weight.var, gate, act_norm.var,
                           static_cast<float>(config.norm_eps));
  return linear(ctx, y, out_proj.operand(ctx), {}, output);
}

}  // namespace rodimus
