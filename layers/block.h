// The interface of a block: a model is a stack of blocks, each of which transforms the residual
// stream. layers/blocks.h lists the blocks. A layer is a struct with Parameters and a forward;
// backward lives in autograd/.
#pragma once

#include <vector>

#include "autograd/ops.h"
#include "layers/config.h"
#include "layers/parameter.h"

namespace rodimus {

// What a block remembers of the tokens so far, for one sequence (B = 1). Its size is constant,
// except that keys and values grow when there is no window. Tensors are undefined at the beginning
// of a document and where the block does not use them.
struct BlockState {
  Tensor conv_history;  // (1, width-1, e) in the compute type: the last inputs of the short
                        // convolution
  Tensor memory;        // (1, m, e) f32: the DDTS state
  Tensor keys, values;  // (capacity, Hk, D), (capacity, Hv, D) in the compute type, after rotary
  int64_t cached = 0;   // rows of keys in use
};

// The residual stream with its last addition still pending, so that every addition can be fused
// with the norm that follows it.
struct Stream {
  Var x;       // (B,T,d) f32
  Var branch;  // (B,T,d) in the compute type, or undefined
};

// What every part of a block needs besides its input.
struct Pass {
  Tensor starts;  // (B,T) int32, or undefined: see kernels/short_conv.h
  BlockState* state = nullptr;
  int64_t position = 0;  // of the first token, for rotary
};

class Block {
 public:
  Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  virtual ~Block() = default;

  virtual Stream forward(Context& ctx, const Stream& stream, const Pass& pass) const = 0;
  // Appends pointers to all parameters, always in the same order.
  virtual void collect(std::vector<Parameter*>& into) = 0;
};

// The output mode of the product that ends a block: a replay does not read its result.
inline LinearOutput last_output(const Context& ctx) {
  return ctx.replay ? LinearOutput::unread : LinearOutput::plain;
}

// The initial values of projections back into the stream are divided by sqrt(n * n_layers), n =
// branches per block.
Init residual_init(const ModelConfig& config, int branches);

}  // namespace rodimus
