// The shape of a model: every setting that determines which function it computes.
#pragma once

#include <cstdint>
#include <string>

namespace rodimus {

inline constexpr int64_t kFullWindow = 0;
// Of one dimension, so that the product of two fits in 64 bits.
inline constexpr int64_t kMaxSize = INT32_MAX;
inline constexpr int64_t kMaxLayers = 100000;
inline constexpr int64_t kMaxConvWidth = 32;  // taps the convolution kernel can hold

// Symbols as in arXiv:2410.06577. A field of 0 means the authors' default, which the functions
// below resolve.
struct ModelConfig {
  std::string block = "rodimus_plus";  // a name of layers/blocks.h
  int64_t vocab_size = 0;
  int64_t d_model = 0;
  int64_t n_layers = 0;
  int64_t mem_size = 64;  // m: key channels of the DDTS state
  int64_t conv_width = 4;
  double expand = 2;      // e = expand * d, rounded up to a multiple of 8
  int64_t gate_rank = 0;  // r; 0: max(d / 64, 16)
  int64_t n_heads = 0;    // of SW-SKA; unused by Rodimus
  int64_t n_heads_k = 1;
  int64_t n_heads_v = 0;         // 0: n_heads
  int64_t window = kFullWindow;  // keys that a query sees, its own included; kFullWindow: all
  double ffn_ratio = 4.0 / 3;    // f = ffn_ratio * d, truncated, then rounded up to a multiple of 8
  double rope_base = 10000;
  double norm_eps = 1e-5;
  double key_norm_eps = 1e-12;  // 1e-5 in the released checkpoints
  bool tied = false;            // head = embedding

  int64_t d_inner() const;
  int64_t value_gate_rank() const;  // r
  int64_t d_ff() const;
  int64_t head_dim() const { return d_model / n_heads; }
  int64_t heads_v() const { return n_heads_v > 0 ? n_heads_v : n_heads; }
  int64_t left() const { return window == kFullWindow ? -1 : window - 1; }

  // Throws Error naming the key, its value and what is allowed.
  void validate() const;
};

// Throws Error unless `value`, the value of model.`key`, is in [least, most].
void check_size(const char* key, int64_t value, int64_t least, int64_t most = kMaxSize);

}  // namespace rodimus
