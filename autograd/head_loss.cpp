#include "kernels/head_loss.h"

#include "autograd/ops.h"
#include "kernels/dry.h"

namespace rodimus {

Tensor head_loss(Context& ctx, const Var& x, const Var& w, const Tensor& targets, float scale) {
  const HeadLossDims dims{targets.numel(), x.value.dim(-1), w.value.dim(0)};
  CHECK(x.value.numel() == dims.rows * dims.dim, "head_loss: x ", to_string(x.value.shape()),
        " for ", dims.rows, " targets");
  check_shape("head_loss: w", w.value, {dims.vocab, dims.dim});
  const Named named("head_loss");
  Tensor losses = Tensor::empty({dims.rows}, DType::f32, ctx.device());
  const double flops = matmul_flops(dims.rows, dims.vocab, dims.dim);
  const double dx_and_dw = bytes_of(x.value) + 4 * static_cast<double>(w.value.numel());
  const Op op{
      "head_loss", {flops, bytes_of(x.value, w.value, targets, losses)}, {2 * flops, dx_and_dw}};
  const Profile::Scope scope(ctx.profile, op,
                             ctx.tape ? Profile::Phase::forward_backward : Profile::Phase::forward);
  if (!ctx.tape) {
    count_scratch(ctx.exec, [&](const auto& machine) {
      return head_loss_scratch(machine, Direction::forward, ctx.compute, dims);
    });
    dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
      head_loss_forward<T>(exec, {.dims = dims,
                                  .x = x.value.data<T>(),
                                  .w = w.value.data<T>(),
                                  .targets = targets.data<int32_t>(),
                                  .losses = losses.data<float>()});
    });
    return losses;
  }
  const Named in_flight(kWorkspace);
  Tensor dx = empty_like(x.value);
  GradSlot::Target dw = w.slot->target(ctx, w.value.shape(), DType::f32);
  CHECK(dw.beta == 1, "head_loss: the head needs a gradient buffer");
  count_scratch(ctx.exec, [&](const auto& machine) {
    return head_loss_scratch(machine, Direction::backward, ctx.compute, dims);
  });
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    head_loss_forward_backward<T>(exec, {.dims = dims,
                                         .x = x.value.data<T>(),
                                         .w = w.value.data<T>(),
                                         .targets = targets.data<int32_t>(),
                                         .scale = scale,
                                         .losses = losses.data<float>(),
                                         .dx = dx.data<T>(),
                                         .dw = dw.tensor.data<float>()});
  });
  x.slot->add(ctx, dx);
  return losses;
}

}  // namespace rodimus
