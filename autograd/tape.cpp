#include "autograd/tape.h"

#include "kernels/convert.h"
#include "kernels/dry.h"

namespace rodimus {

void GradSlot::add(Context& ctx, Tensor contribution) {
  if (!grad_.defined()) {
    grad_ = std::move(contribution);
    return;
  }
  check_shape("GradSlot::add: contribution", contribution, grad_.shape());
  CHECK(contribution.dtype() == grad_.dtype(), "GradSlot::add: ", name_of(contribution.dtype()),
        " into ", name_of(grad_.dtype()));
  const Profile::Scope scope(ctx.profile, {"gradient add", {}, {0, 3 * bytes_of(grad_)}},
                             Profile::Phase::backward);
  dispatch(ctx.exec, grad_.dtype(), [&]<class T>(auto& backend) {
    accumulate(backend, grad_.data<T>(), std::as_const(contribution).data<T>(), grad_.numel());
  });
}

GradSlot::Target GradSlot::target(const Context& ctx, const Shape& shape, DType dtype) {
  if (grad_.defined()) {
    CHECK(grad_.numel() == numel_of(shape) && grad_.dtype() == dtype,
          "GradSlot::target: ", to_string(shape), " ", name_of(dtype), " into ",
          to_string(grad_.shape()), " ", name_of(grad_.dtype()));
    return {grad_, 1};
  }
  grad_ = Tensor::empty(shape, dtype, ctx.device());
  return {grad_, 0};
}

Tensor GradSlot::take() {
  CHECK(!bound_, "GradSlot::take: the gradient of a parameter stays in its buffer");
  return std::exchange(grad_, Tensor{});
}

void Tape::record(const Op& op, std::vector<std::shared_ptr<GradSlot>> outputs, Backward backward) {
  steps_.push_back({op, std::move(outputs), std::move(backward), nullptr});
}

void Tape::mark(std::function<void(Context&)> reached) {
  steps_.push_back({{"mark"}, {}, nullptr, std::move(reached)});
}

void Tape::backward(Context& ctx, std::vector<Seed> seeds) {
  for (Seed& seed : seeds) seed.slot->add(ctx, std::move(seed.grad));
  Context inner{
      .exec = ctx.exec, .compute = ctx.compute, .profile = ctx.profile, .group = ctx.group};
  const Named named(kWorkspace);
  std::vector<Tensor> grads;
  while (!steps_.empty()) {
    const Step step = std::move(
        steps_.back());  // freed at the end of this iteration, with everything it captured
    steps_.pop_back();
    if (step.reached) {
      step.reached(inner);
      continue;
    }
    grads.clear();
    bool any = false;
    for (const auto& slot : step.outputs) {
      grads.push_back(slot->take());
      any = any || grads.back().defined();
    }
    if (!any) continue;
    const Profile::Scope scope(ctx.profile, step.op, Profile::Phase::backward);
    step.backward(inner, grads);
  }
}

Var make_output(const Context& ctx, Tensor value) {
  return {std::move(value), ctx.tape != nullptr ? std::make_shared<GradSlot>() : nullptr};
}

std::vector<Var> recompute(Context& ctx, const std::vector<Var>& inputs, Segment segment) {
  if (ctx.tape == nullptr) return segment(ctx, inputs);
  Context silent{
      .exec = ctx.exec, .compute = ctx.compute, .profile = ctx.profile, .group = ctx.group};
  std::vector<Var> outputs;
  std::vector<std::shared_ptr<GradSlot>> slots;
  for (Var& result : segment(silent, inputs)) {
    outputs.push_back(make_output(ctx, std::move(result.value)));
    slots.push_back(outputs.back().slot);
  }
  ctx.tape->record({"recompute"}, std::move(slots),
                   [inputs, segment](Context& inner, std::span<Tensor> dy) {
                     Tape local;
                     Context replay{.exec = inner.exec,
                                    .compute = inner.compute,
                                    .tape = &local,
                                    .profile = inner.profile,
                                    .group = inner.group,
                                    .replay = true};
                     std::vector<Tape::Seed> seeds;
                     {
                       // The replay writes straight into the slots of its inputs.
                       if (inner.profile) inner.profile->set_replaying(true);
                       const std::vector<Var> again = segment(replay, inputs);
                       if (inner.profile) inner.profile->set_replaying(false);
                       for (size_t i = 0; i < again.size(); ++i) {
                         if (dy[i].defined()) seeds.push_back({again[i].slot, std::move(dy[i])});
                       }
                     }
                     local.backward(replay, std::move(seeds));
                   });
  return outputs;
}

}  // namespace rodimus
