// Reverse-mode differentiation by a tape. Steps are recorded in execution order, which is a
// topological order, and backward runs them once in reverse and frees each as it goes. A Var is a
// value plus a slot for its gradient; closures hold what their capture lists name and the slots of
// outputs, and an output's value only if backward needs it: there are no reference cycles, and the
// saved memory can be read off the code.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "autograd/profile.h"
#include "autograd/tensor.h"

namespace rodimus {

struct Context;

// Accumulates one gradient. Either free-standing (activations) or bound to a view of the flat
// gradient buffer (parameters).
class GradSlot {
 public:
  GradSlot() = default;
  explicit GradSlot(Tensor bound) : grad_(std::move(bound)), bound_(true) {}

  // Adds a contribution: the first one is moved in, later ones are summed. `contribution` must not
  // be used afterwards.
  void add(Context& ctx, Tensor contribution);

  // Where an op can write its contribution directly. beta 0: overwrite, 1: add to what is there.
  struct Target {
    Tensor tensor;
    float beta;
  };
  Target target(const Context& ctx, const Shape& shape, DType dtype);

  // Hands the finished gradient to the backward that consumes it, once. Undefined when nothing
  // contributed.
  Tensor take();
  bool bound() const { return bound_; }

 private:
  Tensor grad_;
  bool bound_ = false;  // bound slots start at zero (the buffer is zeroed) and are never taken
};

struct Var {
  Tensor value;
  std::shared_ptr<GradSlot> slot;  // null: no gradient wanted
};

class Group;
class Tape;

// Passed explicitly, never global. A null tape means inference. `compute` is the type of GEMM
// inputs and saved activations. `profile`, unless null, receives the times of all ops.
// `group`, unless null, holds the ranks that share the work of an op.
struct Context {
  Exec exec;
  DType compute = DType::f32;
  Tape* tape = nullptr;
  Profile* profile = nullptr;
  Group* group = nullptr;
  bool replay = false;  // recompute() runs a segment again: the values it returns are not read
  Device device() const { return device_of(exec); }
};

class Tape {
 public:
  // Receives the gradients of the recorded outputs, in order; an undefined Tensor where an output
  // got none.
  using Backward = std::function<void(Context&, std::span<Tensor> dy)>;

  // `outputs` are the slots of the Vars that the op made; the profile uses the name and cost of
  // `op`.
  void record(const Op& op, std::vector<std::shared_ptr<GradSlot>> outputs, Backward backward);

  // Calls `reached` when backward gets here, that is, when all later steps are done: gradients of
  // parameters that only later steps use are then final, and their all-reduce can start.
  void mark(std::function<void(Context&)> reached);

  // Adds the given upstream gradients to their slots, then runs all steps in reverse, skipping
  // those whose outputs got no gradient. The tape is empty afterwards. During the run ctx.tape is
  // null.
  struct Seed {
    std::shared_ptr<GradSlot> slot;
    Tensor grad;
  };
  void backward(Context& ctx, std::vector<Seed> seeds);

  size_t size() const { return steps_.size(); }

 private:
  struct Step {
    Op op;
    std::vector<std::shared_ptr<GradSlot>> outputs;
    Backward backward;
    std::function<void(Context&)> reached;
  };
  std::vector<Step> steps_;
};

// A Var for an op's result: with a slot when a tape records.
Var make_output(const Context& ctx, Tensor value);

// Runs `segment` without saving anything but its inputs, and runs it again during backward
// (activation recomputation: Chen et al. 2016, arXiv:1604.06174). `segment` must be a pure function
// of its inputs and of bound parameters; when ctx.replay is set it may leave out the values of its
// outputs. Results are bitwise the same with and without recomputation, because the same kernels
// run on the same values in the same order.
using Segment = std::function<std::vector<Var>(Context&, const std::vector<Var>&)>;
std::vector<Var> recompute(Context& ctx, const std::vector<Var>& inputs, Segment segment);

}  // namespace rodimus
