#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/reduce.h"
#include "train/optimizers.h"

namespace rodimus {

Optimizer::Optimizer(ParameterBuffers& buffers, OptimizerConfig config)
    : buffers_(buffers), config_(std::move(config)) {}

void Optimizer::step(Exec& exec, double lr, double grad_norm) {
  ++updates_;
  update(exec, lr, config_.clip > 0 ? std::min(1.0, config_.clip / (grad_norm + 1e-6)) : 1.0);
}

std::unique_ptr<Optimizer> make_optimizer(Exec& exec, ParameterBuffers& buffers,
                                          const OptimizerConfig& config) {
  for (const OptimizerType& type : kOptimizers)
    if (type.name == config.name) return type.make(exec, buffers, config);
  fail("optimizer.name = \"", config.name, "\": there is no such optimizer");
}

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const OptimizerType& type : kOptimizers) names.emplace_back(type.name);
  return names;
}

double gradient_norm(Exec& exec, const ParameterBuffers& buffers) {
  std::vector<ArrayPart> parts;
  for (const Parameter* p : buffers.parameters) parts.push_back({p->offset, numel_of(p->shape)});
  double squares = 0;
  on_device(exec, [&](auto& backend) {
    squares = sum_of_squares(backend, buffers.grads.data<float>(), parts);
  });
  return std::sqrt(squares);
}

}  // namespace rodimus
