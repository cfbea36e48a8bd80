// The FLOPs of a model worked out by hand: the independent truth for the costs that ops state.
#pragma once

#include "autograd/ops.h"
#include "layers/blocks.h"

namespace rodimus::testing {

// Matrix-product FLOPs (a multiply-add is two) of one forward pass over sequences of T tokens, per
// token: projections, the chunked DDTS form without redundant work, the visible query-key pairs of
// SW-SKA, the head. A training step takes three times that, four with recomputation (the extra
// forward is not counted as useful).
inline double flops_by_hand(const ModelConfig& c, int64_t T) {
  const double d = static_cast<double>(c.d_model), e = static_cast<double>(c.d_inner());
  const double m = static_cast<double>(c.mem_size), r = static_cast<double>(c.value_gate_rank());
  // Projections: fc (d, 2e), out (e, d), qk and gates (e, 2m) each, the low-rank value gate.
  double weights = 3 * d * e + 4 * m * e + 2 * r * e;
  const double t = static_cast<double>(T);
  double mixing = ddts_flops(T, c.mem_size, c.d_inner()) / t;
  if (block_type(c.block).reads("n_heads")) {
    const double heads_k = static_cast<double>(c.n_heads_k * c.head_dim());
    const double heads_v = static_cast<double>(c.heads_v() * c.head_dim());
    weights += d * (d + heads_k + heads_v + d) + 3 * d * static_cast<double>(c.d_ff());
    mixing += ska_flops(T, T, c.d_model, c.left()) / t;  // averaged over positions
  }
  const double head = d * static_cast<double>(c.vocab_size);
  return static_cast<double>(c.n_layers) * (2 * weights + mixing) + 2 * head;
}

}  // namespace rodimus::testing
