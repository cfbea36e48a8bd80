// One block of Rodimus or Rodimus+ and its parts. A layer is a struct with Parameters and a
// forward; backward lives in autograd/.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "layers/config.h"
#include "layers/parameter.h"

namespace rodimus {

// What a block remembers of the tokens so far, for one sequence (B = 1): constant size, except that
// keys and values without a window grow. Undefined tensors stand for the beginning of a document.
struct BlockState {
  Tensor conv_history;  // (1, width-1, e) in the compute type: the last inputs of the short
                        // convolution
  Tensor memory;        // (1, m, e) f32: the DDTS state
  Tensor keys, values;  // (capacity, Hk, D), (capacity, Hv, D) in the compute type, after rotary
  int64_t cached = 0;   // rows of keys in use
};

// The residual stream with its last addition still pending, so that every addition fuses with the
// norm that follows.
struct Stream {
  Var x;       // (B,T,d) f32
  Var branch;  // (B,T,d) in the compute type, or undefined
};

// What all parts of a block need besides their input.
struct Pass {
  Tensor starts;  // (B,T) int32, or undefined: see kernels/short_conv.h
  BlockState* state = nullptr;
  int64_t position = 0;  // of the first token, for rotary
};

// y = W_out gated_norm(DDTS(conv(h)), ...): the token mixer. Equations in docs/tour.md;
// arXiv:2410.06577, section 3.
struct Mixer {
  Mixer(const ModelConfig& config, const std::string& prefix);
  Var forward(Context& ctx, const Var& x, const Pass& pass, LinearOutput output) const;
  void collect(std::vector<Parameter*>& into);

  ModelConfig config;
  Parameter fc;                      // (2e, d): rows [0,e) make h, [e,2e) the output gate
  Parameter conv_weight, conv_bias;  // (e, 1, width), (e)
  Parameter in_proj;                 // (2m, e): q, k
  Parameter gate_weight, gate_bias;  // (2m, e), (2m): selection and temperature
  Parameter value_down;              // (r, e)
  Parameter value_up, value_bias;    // (e, r), (e)
  Parameter residual_weight;         // (e)
  Parameter act_norm;                // (e)
  Parameter out_proj;                // (d, e)
};

// Sliding-window shared-key attention with rotary positions.
struct Attention {
  Attention(const ModelConfig& config, const std::string& prefix);
  Var forward(Context& ctx, const Var& x, const Pass& pass) const;
  void collect(std::vector<Parameter*>& into);

  ModelConfig config;
  Parameter q_proj, k_proj, v_proj, out_proj;  // (d, d), (Hk D, d), (Hv D, d), (d, d)
};

// W_out (silu(z) * u), (u, z) = W_fc x.
struct Ffn {
  Ffn(const ModelConfig& config, const std::string& prefix);
  Var forward(Context& ctx, const Var& x, LinearOutput output) const;
  void collect(std::vector<Parameter*>& into);

  int64_t d_ff;
  Parameter fc, out_proj;  // (2f, d), (d, f)
};

struct Block {
  Block(const ModelConfig& config, int64_t index);
  Stream forward(Context& ctx, const Stream& stream, const Pass& pass) const;
  void collect(std::vector<Parameter*>& into);

  float norm_eps;
  Parameter mixer_norm;
  Mixer mixer;
  struct Plus {  // what Rodimus+ adds
    Parameter attn_norm;
    Attention attn;
    Parameter ffn_norm;
    Ffn ffn;
  };
  std::optional<Plus> plus;
};

}  // namespace rodimus
