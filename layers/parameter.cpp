#include "layers/parameter.h"

#include <algorithm>
#include <cmath>

#include "kernels/convert.h"
#include "kernels/dry.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

namespace rodimus {
namespace {

constexpr int64_t kAlign = 32;  // elements: 64 bytes of bf16

uint64_t stream_of(const std::string& name) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// Initialises the selection gates so that decays span two decades: the first half is the inverse
// softplus of a value that is log-uniform in [1e-3, 1e-1], the second half the logit of U(1/16,
// 0.9).
std::vector<float> memory_gate(int64_t n, uint64_t seed, uint64_t stream) {
  std::vector<float> bias(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const double u = random_unit(seed, stream, static_cast<uint64_t>(i));
    if (i < n / 2) {
      const double x =
          std::max(std::exp(std::log(1e-3) + u * (std::log(1e-1) - std::log(1e-3))), 1e-4);
      bias[static_cast<size_t>(i)] = static_cast<float>(x + std::log(-std::expm1(-x)));
    } else {
      const double p = 1.0 / 16 + u * (0.9 - 1.0 / 16);
      bias[static_cast<size_t>(i)] = static_cast<float>(std::log(p / (1 - p)));
    }
  }
  return bias;
}

void fill_one(Exec& exec, Parameter& p, uint64_t seed) {
  float* x = p.var.value.data<float>();
  const int64_t n = p.var.value.numel();
  const uint64_t stream = stream_of(p.name);
  const auto scale = [&](double value) { return static_cast<float>(value / p.init.divide_by); };
  on_device(exec, [&](auto& backend) {
    switch (p.init.kind) {
      case Init::Kind::zeros:
        return fill(backend, x, 0, n);
      case Init::Kind::ones:
        return fill(backend, x, 1, n);
      case Init::Kind::normal:
        return random_normal(backend, x, n, scale(p.init.scale), seed, stream);
      case Init::Kind::uniform:
        return random_uniform(backend, x, n, scale(-p.init.scale), scale(p.init.scale), seed,
                              stream);
      case Init::Kind::xavier_uniform: {
        const double bound =
            p.init.scale * std::sqrt(6.0 / static_cast<double>(p.shape[0] + p.shape[1]));
        return random_uniform(backend, x, n, scale(-bound), scale(bound), seed, stream);
      }
      case Init::Kind::memory_gate:
        return memory::upload(backend, x, memory_gate(n, seed, stream).data(), p.var.value.bytes());
    }
  });
}

}  // namespace

Parameter::Parameter(std::string parameter_name, Shape parameter_shape, Init start, Decay decays)
    : name(std::move(parameter_name)),
      shape(std::move(parameter_shape)),
      init(start),
      decay(decays) {}

Var Parameter::operand(const Context& ctx) const {
  return {ctx.compute == DType::bf16 ? bf16_copy : var.value, var.slot};
}

int64_t ParameterBuffers::count() const {
  int64_t sum = 0;
  for (const Parameter* p : parameters) sum += numel_of(p->shape);
  return sum;
}

ParameterBuffers allocate_parameters(Exec& exec, const std::vector<std::vector<Parameter*>>& groups,
                                     DType compute, bool grads) {
  ParameterBuffers buffers;
  int64_t size = 0;
  for (const std::vector<Parameter*>& group : groups) {
    buffers.groups.push_back(size);
    for (const Decay decay : {Decay::yes, Decay::no}) {
      const int64_t begin = size;
      for (Parameter* p : group) {
        if (p->decay != decay) continue;
        p->offset = size;
        size += (numel_of(p->shape) + kAlign - 1) / kAlign * kAlign;
      }
      if (size == begin) continue;
      if (!buffers.segments.empty() && buffers.segments.back().decay == decay) {
        buffers.segments.back().end = size;
      } else {
        buffers.segments.push_back({begin, size, decay});
      }
    }
    buffers.parameters.insert(buffers.parameters.end(), group.begin(), group.end());
  }
  if (grads) {
    const Named named("gradients");
    buffers.grads = zeros(exec, {size});
  }
  const Named named("parameters");
  buffers.values = zeros(exec, {size});
  if (compute == DType::bf16)
    buffers.bf16_copy = Tensor::empty({size}, DType::bf16, device_of(exec));
  for (Parameter* p : buffers.parameters) {
    p->var.value = buffers.values.slice(p->offset, p->shape);
    if (grads) p->var.slot = std::make_shared<GradSlot>(buffers.grads.slice(p->offset, p->shape));
    if (buffers.bf16_copy.defined()) p->bf16_copy = buffers.bf16_copy.slice(p->offset, p->shape);
  }
  return buffers;
}

void initialize(Exec& exec, ParameterBuffers& buffers, uint64_t seed) {
  for (Parameter* p : buffers.parameters) fill_one(exec, *p, seed);
  refresh_bf16_copy(exec, buffers);
}

void refresh_bf16_copy(Exec& exec, ParameterBuffers& buffers) {
  if (!buffers.bf16_copy.defined()) return;
  on_device(exec, [&](auto& backend) {
    convert(backend, buffers.bf16_copy.data<bf16>(), std::as_const(buffers.values).data<float>(),
            buffers.values.numel());
  });
}

}  // namespace rodimus
