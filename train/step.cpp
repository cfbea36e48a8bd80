#include "train/step.h"

#include <array>
#include <chrono>
#include <cmath>

#include "base/progress.h"
#include "kernels/convert.h"
#include "kernels/reduce.h"
#include "train/signals.h"

namespace rodimus {
namespace {

using Scope = Profile::Scope;

Op whole_pass(std::string_view name, double bytes) { return {name, {0, bytes}}; }

}  // namespace

// Runs all micro-batches of this rank; gradients end up in the flat buffer, and `gradient_sum` is
// told as the last micro-batch makes them final. Returns the summed loss of the rank.
double Stepper::forward_backward(BucketedSum& gradient_sum, double* data_wait_s) {
  constexpr auto kStep = Profile::Phase::step;
  Tensor& grads = model.parameters().grads;
  {
    const Scope scope(ctx.profile, whole_pass("zero gradients", bytes_of(grads)), kStep);
    on_device(ctx.exec, [&](auto& exec) { fill(exec, grads.data<float>(), 0, grads.numel()); });
  }
  const float scale = 1 / static_cast<float>(tokens);
  // Losses are summed after the last micro-batch: on a GPU the host would wait for each sum instead
  // of preparing batches.
  std::vector<Tensor> losses;
  for (int64_t i = 0; i < micro_batches; ++i) {
    BatchTensors batch;
    {
      const Scope scope(ctx.profile, {"batch"}, kStep);
      const auto begin = std::chrono::steady_clock::now();
      batch = next();
      *data_wait_s += seconds_since(begin);
    }
    Tape tape;
    Context recording = ctx;
    recording.tape = &tape;
    Model::FinalFrom final_from;
    if (i + 1 == micro_batches) {
      final_from = [this, &gradient_sum](int64_t begin) {
        const Scope scope(ctx.profile, {"all-reduce"}, kStep);
        gradient_sum.final_from(begin);
      };
    }
    losses.push_back(model.losses(recording, batch.inputs, batch.targets, batch.starts, scale,
                                  recompute, final_from));
    tape.backward(recording, {});
  }
  double loss = 0;
  for (const Tensor& part : losses)
    on_device(ctx.exec, [&](auto& exec) { loss += sum(exec, part.data<float>(), part.numel()); });
  return loss;
}

StepResult Stepper::step(double lr) {
  constexpr auto kStep = Profile::Phase::step;
  double waited = 0;
  ParameterBuffers& buffers = model.parameters();
  BucketedSum gradient_sum(communicator, ctx.exec, buffers.grads.data<float>(),
                           buffers.grads.numel(), bucket);
  const double loss = forward_backward(gradient_sum, &waited);
  std::array<double, 3> sums{loss, stop_requested() ? 1.0 : 0.0, waited};
  {
    const Scope scope(ctx.profile, whole_pass("all-reduce", 2 * bytes_of(buffers.grads)), kStep);
    gradient_sum.finish();
    communicator.all_reduce_sum(std::span<double>(sums));
  }

  StepResult result;
  result.loss = sums[0] / static_cast<double>(tokens);
  result.stop = sums[1] > 0;
  result.data_wait_s = sums[2] / communicator.world_size();
  {
    const Scope scope(ctx.profile, whole_pass("gradient norm", bytes_of(buffers.grads)), kStep);
    result.grad_norm = gradient_norm(ctx.exec, buffers);
  }
  // Both come from sums over all ranks, so every rank makes the same decision.
  result.skipped = !(std::isfinite(result.loss) && std::isfinite(result.grad_norm));
  if (!result.skipped) {
    const Scope scope(ctx.profile, optimizer.op(), kStep);
    optimizer.step(ctx.exec, lr, result.grad_norm);
  }
  return result;
}

}  // namespace rodimus
