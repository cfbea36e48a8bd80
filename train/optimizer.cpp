#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/adamw.h"
#include "kernels/reduce.h"

namespace rodimus {

AdamW::AdamW(Exec& exec, ParameterBuffers& buffers, OptimizerConfig config)
    : buffers_(buffers),
      config_(std::move(config)),
      m_(zeros(exec, buffers.values.shape())),
      v_(zeros(exec, buffers.values.shape())) {}

double AdamW::grad_norm(Exec& exec) const {
  double squares = 0;
  on_device(exec, [&](auto& backend) {
    squares = sum_of_squares(backend, std::as_const(buffers_.grads).data<float>(),
                             buffers_.grads.numel());
  });
  return std::sqrt(squares);
}

void AdamW::step(Exec& exec, double lr, double grad_norm) {
  ++updates_;
  const double t = static_cast<double>(updates_);
  const double scale = config_.clip > 0 ? std::min(1.0, config_.clip / (grad_norm + 1e-6)) : 1.0;
  AdamWStep update{.lr = static_cast<float>(lr),
                   .beta1 = static_cast<float>(config_.beta1),
                   .beta2 = static_cast<float>(config_.beta2),
                   .eps = static_cast<float>(config_.eps),
                   .weight_decay = 0,
                   .grad_scale = static_cast<float>(scale),
                   .bias_correction1 = static_cast<float>(1 - std::pow(config_.beta1, t)),
                   .bias_correction2 = static_cast<float>(1 - std::pow(config_.beta2, t))};
  const auto run = [&](int64_t begin, int64_t end, double weight_decay) {
    update.weight_decay = static_cast<float>(weight_decay);
    on_device(exec, [&](auto& backend) {
      bf16* copy = buffers_.bf16_copy.defined() ? buffers_.bf16_copy.data<bf16>() + begin : nullptr;
      adamw(backend, buffers_.values.data<float>() + begin, m_.data<float>() + begin,
            v_.data<float>() + begin, copy, std::as_const(buffers_.grads).data<float>() + begin,
            end - begin, update);
    });
  };
  run(0, buffers_.decayed, config_.weight_decay);
  run(buffers_.decayed, buffers_.values.numel(), 0);
}

}  // namespace rodimus
