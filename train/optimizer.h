// AdamW over the flat parameter buffers, with clipping by the global norm folded into the update.
#pragma once

#include "layers/parameter.h"
#include "train/config/config.h"

namespace rodimus {

class AdamW {
 public:
  // Moments start at zero. `buffers` must outlive the optimizer.
  AdamW(Exec& exec, ParameterBuffers& buffers, OptimizerConfig config);

  // sqrt of the sum of squares of all gradients, in a fixed order. NaN and infinity come through.
  double grad_norm(Exec& exec) const;

  // One update with gradients scaled by min(1, clip / (grad_norm + 1e-6)); also writes the bf16
  // copy. See kernels/adamw.h.
  void step(Exec& exec, double lr, double grad_norm);

  int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }
  Tensor& m() { return m_; }
  Tensor& v() { return v_; }

 private:
  ParameterBuffers& buffers_;
  OptimizerConfig config_;
  Tensor m_, v_;  // (size) f32
  int64_t updates_ =
      0;  // updates so far: the t of the bias corrections. Skipped steps do not count.
};

}  // namespace rodimus
