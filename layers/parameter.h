// Parameters: named as in the authors' checkpoints, all values in one flat f32 buffer and all
// gradients in another, so that zeroing, clipping, all-reduce, AdamW and checkpoints are passes
// over ranges.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "autograd/tape.h"

namespace rodimus {

// How a parameter is initialised. `scale` is the standard deviation, the gain or the bound.
struct Init {
  enum class Kind : uint8_t {
    zeros,
    ones,
    normal,          // N(0, scale^2)
    uniform,         // U(-scale, scale)
    xavier_uniform,  // U(-a, a), a = scale * sqrt(6 / (in + out))
    memory_gate,     // bias of the selection gates: see parameter.cpp
  };
  Kind kind = Kind::zeros;
  double scale = 0;
  double divide_by = 1;  // residual projections: the drawn values are divided by this
};

// Whether weight decay applies to a parameter: yes for matrices, no for biases, norms and gains.
enum class Decay : uint8_t { no, yes };

struct Parameter {
  Parameter(std::string parameter_name, Shape parameter_shape, Init start, Decay decays);

  std::string name;
  Shape shape;
  Init init;
  Decay decay;
  int64_t offset = 0;  // in the flat buffers
  Var var;             // f32 values; the slot is bound to the flat gradients
  Tensor bf16_copy;    // when the model computes in bf16

  // The weight as a GEMM operand: in ctx.compute, with gradients in f32.
  Var operand(const Context& ctx) const;
};

// The flat buffers hold the parameters in the order in which forward uses them. Backward completes
// gradients from the end: the final part is [begin, size), with a decreasing `begin`.
struct ParameterBuffers {
  Tensor values, grads;                // (size) f32
  Tensor bf16_copy;                    // (size), or undefined
  std::vector<Parameter*> parameters;  // in declaration order
  std::vector<int64_t> groups;         // where each group begins

  // Ranges of elements that cover [0, size) without gaps, each with or without weight decay.
  struct Segment {
    int64_t begin, end;
    Decay decay;
  };
  std::vector<Segment> segments;

  int64_t count() const;  // parameters without alignment gaps
};

// `groups` must be in the order in which forward uses them. Backward finishes a group as a whole,
// so within a group the decayed parameters come first, which makes fewer segments. Every parameter
// begins at a multiple of 32 elements (gaps are zero). Binds values and slots. `grads` false:
// inference. `compute` bf16 adds the bf16 copy.
ParameterBuffers allocate_parameters(Exec& exec, const std::vector<std::vector<Parameter*>>& groups,
                                     DType compute, bool grads);

// Draws the initial values: element i of parameter p is a function of (seed, p's name, i) alone.
// Refreshes the bf16 copy.
void initialize(Exec& exec, ParameterBuffers& buffers, uint64_t seed);

// bf16_copy = bf16(values); does nothing in f32. Call it after anything but the optimizer has
// written the values.
void refresh_bf16_copy(Exec& exec, ParameterBuffers& buffers);

}  // namespace rodimus
