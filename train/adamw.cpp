// AdamW over the flat parameter buffers: see kernels/adamw.h.
#include "kernels/adamw.h"

#include <cmath>

#include "train/optimizers.h"

namespace rodimus {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(Exec& exec, ParameterBuffers& buffers, const OptimizerConfig& config)
      : Optimizer(buffers, config),
        m_(zeros(exec, buffers.values.shape())),
        v_(zeros(exec, buffers.values.shape())) {}

  std::vector<OptimizerState> state() const override {
    const Range all{0, m_.numel()};
    return {{"adam_m", m_, all}, {"adam_v", v_, all}};
  }

  // Cost: reads gradients, values and moments; writes values, moments and the bf16 copy.
  Op op() const override {
    return {"AdamW", {0, 7 * bytes_of(buffers().values) + bytes_of(buffers().bf16_copy)}};
  }

 protected:
  void update(Exec& exec, double lr, double grad_scale) override {
    const double t = static_cast<double>(updates());
    AdamWStep step{.lr = static_cast<float>(lr),
                   .beta1 = static_cast<float>(config().beta1),
                   .beta2 = static_cast<float>(config().beta2),
                   .eps = static_cast<float>(config().eps),
                   .weight_decay = 0,
                   .grad_scale = static_cast<float>(grad_scale),
                   .bias_correction1 = static_cast<float>(1 - std::pow(config().beta1, t)),
                   .bias_correction2 = static_cast<float>(1 - std::pow(config().beta2, t))};
    ParameterBuffers& all = buffers();
    for (const auto& [begin, end, decay] : all.segments) {
      step.weight_decay = static_cast<float>(decay == Decay::yes ? config().weight_decay : 0);
      bf16* copy = all.bf16_copy.defined() ? all.bf16_copy.data<bf16>() + begin : nullptr;
      float *p = all.values.data<float>() + begin, *m = m_.data<float>() + begin,
            *v = v_.data<float>() + begin;
      const float* g = all.grads.data<float>() + begin;
      on_device(exec,
                [&, n = end - begin](auto& backend) { adamw(backend, p, m, v, copy, g, n, step); });
    }
  }

 private:
  Tensor m_, v_;  // (size) f32: first and second moment
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(Exec& exec, ParameterBuffers& buffers,
                                      const OptimizerConfig& config) {
  return std::make_unique<AdamW>(exec, buffers, config);
}

}  // namespace rodimus
