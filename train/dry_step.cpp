#include "train/dry_step.h"

#include "train/step.h"

namespace rodimus {
namespace {

using Phase = Profile::Phase;

TrainingMemory memory_of(const std::vector<DryMemory::Part>& parts) {
  TrainingMemory memory;
  for (const auto& [name, bytes] : parts) {
    int64_t& sum = name == "parameters"  ? memory.parameters
                   : name == "gradients" ? memory.gradients
                   : name == "moments"   ? memory.moments
                   : name == kWorkspace  ? memory.workspace
                   : name == "batch"     ? memory.batch
                                         : memory.activations;
    sum += bytes;
  }
  return memory;
}

// Allocations that depend on the size of the vocabulary.
bool needs_vocabulary(std::string_view name) {
  return name == "embedding" || name == "head_loss" || name == "model.embeddings.weight" ||
         name == "lm_head.weight";
}

BatchTensors batch_of(const StepShape& shape) {
  const Named named("batch");
  const auto ids = [&] { return Tensor::empty({shape.B, shape.T}, DType::i32, Device::dry); };
  return {ids(), ids(), shape.documents ? ids() : Tensor{}};
}

}  // namespace

DryStep dry_step(const ModelConfig& config, const Dry& machine, DType compute,
                 const StepShape& shape, const OptimizerConfig& updates) {
  ModelConfig known = config;
  if (config.vocab_size == 0) known.vocab_size = 1;
  const auto counts = [&](std::string_view name) {
    return config.vocab_size > 0 || !needs_vocabulary(name);
  };

  DryMemory memory(
      std::visit([](const auto& backend) { return device_of(backend); }, machine.machine));
  Context ctx{machine, compute};
  Model model(known, ctx.exec, compute, /*grads=*/true);
  const auto optimizer = [&] {
    const Named named("moments");
    return make_optimizer(ctx.exec, model.parameters(), updates);
  }();
  // One micro-batch stands for all; only the losses of the others remain live.
  std::vector<Tensor> losses;
  for (int64_t i = 1; i < shape.micro_batches; ++i) {
    const Named named("head_loss");
    losses.push_back(Tensor::empty({shape.B * shape.T}, DType::f32, Device::dry));
  }
  const auto communicator = make_single();
  Profile profile;
  ctx.profile = &profile;
  Stepper stepper{.ctx = ctx,
                  .model = model,
                  .optimizer = *optimizer,
                  .communicator = *communicator,
                  .tokens = shape.B * shape.T,
                  .recompute = shape.recompute,
                  .next = [&] { return batch_of(shape); }};
  profile.start();
  (void)stepper.step(/*lr=*/0);
  profile.stop();

  DryStep step;
  for (const Parameter* p : model.parameters().parameters)
    if (counts(p->name)) step.parameters += numel_of(p->shape);
  for (Profile::Row row : profile.rows()) {
    if (!counts(row.op.name)) continue;
    const bool once = row.phase == Phase::step && row.op.name != "batch";
    const int64_t times = once ? 1 : shape.micro_batches;
    row.calls *= times;
    row.cost = {row.cost.flop * static_cast<double>(times),
                row.cost.bytes * static_cast<double>(times)};
    step.rows.push_back(row);
  }
  step.parts = memory.at_peak();
  step.memory = memory_of(step.parts);
  return step;
}

Dry described(const Exec& exec) {
  return std::visit(
      []<class Backend>(const Backend& backend) {
        if constexpr (std::is_same_v<Backend, Dry>)
          return backend;
        else
          return Dry{backend};
      },
      exec);
}

double DryStep::useful_flop() const {
  double sum = 0;
  for (const Profile::Row& row : rows)
    if (row.phase != Phase::recomputed) sum += row.cost.flop;
  return sum;
}

double forward_flops_per_token(const ModelConfig& model, int64_t T) {
  const DryStep step = dry_step(model, {Cpu{1}}, DType::f32, {.T = T});
  // Backward costs twice as much as forward.
  return step.useful_flop() / 3 / static_cast<double>(T);
}

}  // namespace rodimus
