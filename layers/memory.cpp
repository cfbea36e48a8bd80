// Follows Block::forward and the capture lists in autograd/: a tensor that a closure captured lives
// until that step of backward is done. Letters as in docs/tour.md; c bytes per element of the
// compute type, f32 is 4.
#include "layers/memory.h"

#include <algorithm>

#include "autograd/ops.h"
#include "layers/blocks.h"

namespace rodimus {
namespace {

// Bytes per token.
struct Saved {
  int64_t mixer = 0, attention = 0, ffn = 0;
  int64_t block() const { return mixer + attention + ffn; }
};

Saved saved_by_block(const ModelConfig& m, int64_t c) {
  const int64_t d = m.d_model, e = m.d_inner(), K = m.mem_size;
  const int64_t norm = 4 * d + c * d + 4;  // s, norm, rstd
  Saved saved;
  // h, gate, conv, z, v, o, y; qk and gates, q and k; the low-rank gate; g, rstd.
  saved.mixer = norm + c * (7 * e + 4 * K + 2 * K + m.value_gate_rank()) + 4 * K + 4;
  if (!block_type(m.block).reads("n_heads")) return saved;
  const int64_t keys_and_values = (m.n_heads_k + m.heads_v()) * m.head_dim();
  saved.attention = norm + c * (2 * d + keys_and_values) + 4 * m.n_heads;  // q, o, k, v; lse
  saved.ffn = norm + c * 3 * m.d_ff();                                     // u, z, their product
  return saved;
}

// Backward of the last block of a tape, per token: gradients and scratch beyond what its forward
// saved, less what is freed by then. The larger of two moments.
int64_t extra_in_backward(const ModelConfig& m, int64_t c, const Saved& saved) {
  const int64_t d = m.d_model, e = m.d_inner(), K = m.mem_size;
  const int64_t stream = 4 * d;
  // swiglu: gradients of its output, u, z; its output is gone.
  const int64_t ffn = block_type(m.block).reads("n_heads") ? stream + 2 * c * m.d_ff() : 0;
  // ddts: gate, o and y are gone; gradients of o, gate, conv, v, q, k, g; the states at the borders
  // of chunks (2 K e floats for each 64 tokens and K = 64), the chunks' operands.
  const int64_t scratch = 4 * (2 * K * e / 64 + 3 * K + 64);
  const int64_t mixer = stream + c * (4 * e - 3 * e + 2 * K) + 4 * K + scratch;
  return std::max(ffn, mixer - saved.attention - saved.ffn);
}

}  // namespace

int64_t parameter_count(const ModelConfig& config) {
  std::vector<Parameter*> parameters;
  const auto block = block_type(config.block).make(config, "");
  block->collect(parameters);
  int64_t count = config.d_model;  // final norm
  for (const Parameter* p : parameters) count += config.n_layers * numel_of(p->shape);
  return count + config.vocab_size * config.d_model * (config.tied ? 1 : 2);
}

TrainingMemory training_memory(const ModelConfig& m, Device device, DType compute, int64_t B,
                               int64_t T, bool recompute) {
  const int64_t c = static_cast<int64_t>(size_of(compute)), count = parameter_count(m);
  const int64_t tokens = B * T, d = m.d_model;
  TrainingMemory memory;
  memory.parameters = count * (4 + (compute == DType::bf16 ? 2 : 0));
  memory.gradients = 4 * count;
  memory.moments = 8 * count;
  memory.batch = 2 * 4 * tokens;

  const Saved saved = saved_by_block(m, c);
  const int64_t kept = m.n_layers * (recompute ? 4 * d + c * d : saved.block());  // per token
  // Two moments may be the peak: the loss, after all of forward, and backward of the last block,
  // which recomputation runs once more.
  const int64_t final_norm = tokens * (4 * d + c * d + 4);
  const int64_t block = recompute ? saved.block() : 0;
  // A vocabulary of 0 is one that is not known yet.
  const int64_t logits =
      m.vocab_size == 0 ? 0 : head_loss_scratch_bytes(device, compute, tokens, m.vocab_size);
  const int64_t head = final_norm + tokens * c * d + logits;
  const int64_t last_block = tokens * (block + extra_in_backward(m, c, saved));
  memory.activations = tokens * kept + (head > last_block ? final_norm : tokens * block);
  memory.workspace = std::max(head, last_block) - (head > last_block ? final_norm : tokens * block);
  return memory;
}

}  // namespace rodimus
