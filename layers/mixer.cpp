// The forward passes of the two token mixers, with their carried state.
#include <algorithm>

#include "kernels/memory.h"
#include "layers/block.h"

namespace rodimus {
namespace {

void copy_rows(Context& ctx, Tensor& to, int64_t to_row, const Tensor& from, int64_t from_row,
               int64_t rows) {
  if (rows == 0) return;
  Tensor destination = to.rows(to_row, to_row + rows);
  const Tensor source = from.rows(from_row, from_row + rows);
  on_device(ctx.exec, [&](auto& exec) {
    memory::copy(exec, destination.raw(), source.raw(), source.bytes());
  });
}

// Keeps the last `keep` rows of old ++ fresh in a new tensor, zeros in front when there are fewer.
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

// Appends fresh (1, T, heads, D) to the cache and returns all rows as (1, Tk, heads, D). With left
// >= 0 only the last `left` rows of the past can still be seen; the cache is moved to its front
// when it runs full, so a token costs O(1) moves on average.
Tensor append(Context& ctx, Tensor& cache, int64_t cached, const Tensor& fresh, int64_t left,
              int64_t* kept) {
  const int64_t T = fresh.dim(1), heads = fresh.dim(2), D = fresh.dim(3);
  const int64_t past = left < 0 ? cached : std::min(cached, left);
  if (!cache.defined() || cached + T > cache.dim(0)) {
    Tensor larger = Tensor::empty({past + T + std::max<int64_t>({past, T, 64}), heads, D},
                                  fresh.dtype(), ctx.device());
    if (cache.defined()) copy_rows(ctx, larger, 0, cache, cached - past, past);
    cache = larger;
    cached = past;
  }
  copy_rows(ctx, cache, cached, fresh.view({T, heads, D}), 0, T);
  *kept = cached + T;
  return cache.rows(cached - past, cached + T).view({1, past + T, heads, D});
}

}  // namespace

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

  const Var low = linear(ctx, h, value_down.operand(ctx));  // (B,T,r)
  const Var v = sigmoid_gate(ctx, linear(ctx, low, value_up.operand(ctx)), value_bias.var,
                             h);  // reads h, not c

  const Var o = ddts(ctx, q, k, v, g, pass.starts, state ? &state->memory : nullptr);  // (B,T,e)
  const Var y = gated_norm(ctx, o, c, residual_weight.var, gate, act_norm.var,
                           static_cast<float>(config.norm_eps));
  return linear(ctx, y, out_proj.operand(ctx), {}, output);
}

Var Attention::forward(Context& ctx, const Var& x, const Pass& pass) const {
  const int64_t B = x.value.dim(0), T = x.value.dim(1), D = config.head_dim();
  const float base = static_cast<float>(config.rope_base);
  const auto heads = [&](Var y, int64_t count) {
    y.value = y.value.view({B, T, count, D});
    return y;
  };
  const Var q =
      rotary(ctx, heads(linear(ctx, x, q_proj.operand(ctx)), config.n_heads), base, pass.position);
  Var k = rotary(ctx, heads(linear(ctx, x, k_proj.operand(ctx)), config.n_heads_k), base,
                 pass.position);
  Var v = heads(linear(ctx, x, v_proj.operand(ctx)), config.heads_v());
  if (BlockState* state = pass.state) {
    int64_t kept = 0;
    k.value = append(ctx, state->keys, state->cached, k.value, config.left(), &kept);
    v.value = append(ctx, state->values, state->cached, v.value, config.left(), &kept);
    state->cached = kept;
  }
  Var o = ska(ctx, q, k, v, config.left(), pass.starts);
  o.value = o.value.view({B, T, config.d_model});
  return linear(ctx, o, out_proj.operand(ctx));
}

}  // namespace rodimus
