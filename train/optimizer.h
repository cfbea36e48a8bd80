// The interface of an optimizer, which turns gradients into an update of the parameters.
// train/optimizers.h lists the optimizers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "layers/parameter.h"
#include "train/config/config.h"

namespace rodimus {

// One of the arrays that an optimizer keeps between updates, with one element per element of the
// flat parameter buffers.
struct OptimizerState {
  std::string name;  // its group in a checkpoint: lower-case letters and _
  Tensor tensor;     // f32, the elements that this rank owns
  Range owned;       // the range of those elements
};

class Optimizer {
 public:
  // `buffers` must outlive the optimizer.
  Optimizer(ParameterBuffers& buffers, OptimizerConfig config);
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  virtual ~Optimizer() = default;

  // One update with gradients scaled by min(1, clip / (grad_norm + 1e-6)); also writes the bf16
  // copy.
  void step(Exec& exec, double lr, double grad_norm);

  // Always the same list. The tensors are the optimizer's own: writing to them sets its state.
  virtual std::vector<OptimizerState> state() const = 0;

  // Name and cost of an update, for the profile.
  virtual Op op() const = 0;

  // Updates so far; skipped steps do not count.
  int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }

 protected:
  // `grad_scale` is the clipping factor; updates() already counts this update.
  virtual void update(Exec& exec, double lr, double grad_scale) = 0;
  const OptimizerConfig& config() const { return config_; }
  ParameterBuffers& buffers() const { return buffers_; }

 private:
  ParameterBuffers& buffers_;
  OptimizerConfig config_;
  int64_t updates_ = 0;
};

// The optimizer named config.name, in its initial state. Throws Error if there is none.
std::unique_ptr<Optimizer> make_optimizer(Exec& exec, ParameterBuffers& buffers,
                                          const OptimizerConfig& config);
std::vector<std::string> optimizer_names();

// sqrt of the sum of squares of all gradients, summed by blocks within each parameter, in
// declaration order: the bits depend neither on the layout of the buffers nor on the number of
// ranks. NaN and infinity propagate.
double gradient_norm(Exec& exec, const ParameterBuffers& buffers);

}  // namespace rodimus
