// The forward pass of the attention, with its cache of keys and values.
#include "layers/attention.h"

#include <algorithm>

#include "layers/rows.h"

namespace rodimus {
namespace {

// Appends fresh (1, T, heads, D) to the cache and returns all rows as (1, Tk, heads, D). With left
// >= 0 only the last `left` rows of the past are still visible; when the cache is full they are
// moved to its front, so a token costs O(1) moves on average.
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

void Attention::check(const ModelConfig& c) {
  check_size("n_heads", c.n_heads, 1);
  check_size("n_heads_k", c.n_heads_k, 1);
  check_size("window", c.window, 0);
  if (c.d_model % c.n_heads != 0) {
    fail("model.d_model = ", c.d_model, " is not divisible by model.n_heads = ", c.n_heads,
         ": choose n_heads among the divisors");
  }
  if (c.head_dim() % 2 != 0) {
    fail("model.d_model / model.n_heads = ", c.head_dim(),
         ": rotary embedding needs an even head size");
  }
  if (c.n_heads % c.n_heads_k != 0) {
    fail("model.n_heads = ", c.n_heads, " is not divisible by model.n_heads_k = ", c.n_heads_k);
  }
  if (c.n_heads_v < 0 || c.n_heads % c.heads_v() != 0) {
    fail("model.n_heads = ", c.n_heads, " is not divisible by model.n_heads_v = ", c.n_heads_v);
  }
  if (!(c.rope_base > 1)) fail("model.rope_base = ", c.rope_base, ": must be above 1");
}

Attention::Attention(const ModelConfig& c, const std::string& prefix, Init residual)
    : config(c),
      q_proj(prefix + "q_proj.weight", {c.d_model, c.d_model}, {Init::Kind::normal, 0.02},
             Decay::yes),
      k_proj(prefix + "k_proj.weight", {c.n_heads_k * c.head_dim(), c.d_model},
             {Init::Kind::normal, 0.02}, Decay::yes),
      v_proj(prefix + "v_proj.weight", {c.heads_v() * c.head_dim(), c.d_model},
             {Init::Kind::normal, 0.02}, Decay::yes),
      out_proj(prefix + "out_proj.weight", {c.d_model, c.d_model}, residual, Decay::yes) {}

void Attention::collect(std::vector<Parameter*>& into) {
  into.insert(into.end(), {&q_proj, &k_proj, &v_proj, &out_proj});
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
