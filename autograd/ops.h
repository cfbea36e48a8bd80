// The differentiable ops. Each is one function in autograd/<op>.cpp: checks, forward, recorded
// backward. T below is the element type ctx.compute.
#pragma once

#include "autograd/tape.h"

namespace rodimus {

// Matrix-product FLOPs of one forward pass over a sequence of T tokens; a backward pass takes
// twice as many. DDTS counts the chunked form without padding or redundant work: 2 K V
// multiply-adds per token and K + V per pair of tokens in a chunk. SW-SKA: q k^T and p v over the
// visible pairs of T queries at the end of Tk keys, `width` = heads x head dimension.
double ddts_flops(int64_t T, int64_t K, int64_t V);
double ska_flops(int64_t T, int64_t Tk, int64_t width, int64_t left);

// y (..., out) = x (..., in) w^T, w (out, in) or rows [begin, end) of it (end -1 = all). A
// projection that is split takes one call per part, so that every part is contiguous. x, w and y in
// T.
struct RowRange {
  int64_t begin = 0, end = -1;
};
enum class LinearOutput : uint8_t {
  plain,
  f32,     // y in f32 (logits); inference only
  unread,  // nobody reads y: the op is recorded without it
};
Var linear(Context& ctx, const Var& x, const Var& w, RowRange out_rows = {},
           LinearOutput output = LinearOutput::plain);

// sum = x + branch (x itself when branch is undefined), norm = rms_norm(sum) * w. x (..., D) f32,
// branch (..., D) in T, norm in T.
struct ResidualNorm {
  Var sum, norm;
};
ResidualNorm residual_norm(Context& ctx, const Var& x, const Var& branch, const Var& w, float eps);

// rms_norm((o + skip_weight * c) * silu(gate)) * w; everything (..., D) in T, skip_weight and w (D)
// f32.
Var gated_norm(Context& ctx, const Var& o, const Var& c, const Var& skip_weight, const Var& gate,
               const Var& w, float eps);

// silu(causal depthwise convolution of x (B,T,D)); weight (D,1,width), bias (D) f32. starts (B,T)
// int32 or undefined. `history` (B,width-1,D): the inputs before x, or undefined for zeros; it gets
// no gradient.
Var short_conv(Context& ctx, const Var& x, const Var& weight, const Var& bias,
               const Tensor& history, const Tensor& starts);

// qk, gates (..., 2m) in T, bias (2m) f32 -> q, k (..., m) in T, g (..., m) f32.
struct DdtsOperands {
  Var q, k, g;
};
DdtsOperands ddts_gates(Context& ctx, const Var& qk, const Var& gates, const Var& bias,
                        float key_norm_eps);

// The recurrence. q, k (B,T,K), v (B,T,V) in T, g (B,T,K) f32. `state` (B,K,V) f32: the state
// before token 0, undefined for zeros. Gradients flow into it and out of the final state, so a
// sequence can be cut into parts that, run one after another, compute the same as the whole.
enum class FinalState : uint8_t { dropped, wanted };
struct DdtsResult {
  Var o;      // (B,T,V) in T
  Var state;  // (B,K,V) f32, after token T - 1; undefined when dropped
};
DdtsResult ddts(Context& ctx, const Var& q, const Var& k, const Var& v, const Var& g,
                const Tensor& starts, const Var& state = {},
                FinalState final_state = FinalState::dropped);

// x (B,T,H,D) in T.
Var rotary(Context& ctx, const Var& x, float base, int64_t offset);

// q (B,T,H,D), k (B,Tk,Hk,D), v (B,Tk,Hv,D) in T -> (B,T,H,D). left = window - 1, or -1.
Var ska(Context& ctx, const Var& q, const Var& k, const Var& v, int64_t left, const Tensor& starts);

// silu(z) * u, and sigmoid(z + bias) * x.
Var swiglu(Context& ctx, const Var& u, const Var& z);
Var sigmoid_gate(Context& ctx, const Var& z, const Var& bias, const Var& x);

// ids (B,T) int32, table (vocab, D) f32 -> (B,T,D) f32.
Var embedding(Context& ctx, const Tensor& ids, const Var& table);

// Cross-entropy of x (..., D) in T against targets (rows) int32 through the head w (vocab, D) in T:
// losses per position, (rows) f32, natural log, 0 where the target is kIgnoreTarget. With a tape,
// the gradients of scale * sum(losses) are computed in the same pass and go straight into the slots
// of x and w: this op is the root of the tape, so backward needs no seed.
Tensor head_loss(Context& ctx, const Var& x, const Var& w, const Tensor& targets, float scale);

}  // namespace rodimus
