#include "kernels/head_loss.h"

#include "autograd/ops.h"

namespace rodimus {

Tensor head_loss(Context& ctx, const Var& x, const Var& w, const Tensor& targets, float scale) {
  const HeadLossDims dims{targets.numel(), x.value.dim(-1), w.value.dim(0)};
  CHECK(x.value.numel() == dims.rows * dims.dim, "head_loss: x ", to_string(x.value.shape()),
        " for ", dims.rows, " targets");
  check_shape("head_loss: w", w.value, {dims.vocab, dims.dim});
  Tensor losses = Tensor::empty({dims.rows}, DType::f32, ctx.device());
  const double flops = matmul_flops(dims.rows, dims.vocab, dims.dim);
  const double dx_and_dw = bytes_of(x.value) + 4 * static_cast<double>(w.value.numel());
  const Op op{
      "head_loss", {flops, bytes_of(x.value, w.value, targets, losses)}, {2 * flops, dx_and_dw}};
  const Profile::Scope scope(ctx.profile, op,
                             ctx.tape ? Profile::Phase::forward_backward : Profile::Phase::forward);
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    if (!ctx.tape) {
      head_loss_forward<T>(exec, {.dims = dims,
                                  .x = x.value.data<T>(),
                                  .w = w.value.data<T>(),
                                  .targets = targets.data<int32_t>(),
                                  .losses = losses.data<float>()});
      return;
    }
    Tensor dx = empty_like(x.value);
    GradSlot::Target dw = w.slot->target(ctx, w.value.shape(), DType::f32);
    CHECK(dw.beta == 1, "head_loss: the head needs a gradient buffer");
    head_loss_forward_backward<T>(exec, {.dims = dims,
                                         .x = x.value.data<T>(),
                                         .w = w.value.data<T>(),
                                         .targets = targets.data<int32_t>(),
                                         .scale = scale,
                                         .losses = losses.data<float>(),
                                         .dx = dx.data<T>(),
                                         .dw = dw.tensor.data<float>()});
    x.slot->add(ctx, dx);
  });
  return losses;
}

int64_t head_loss_scratch_bytes(Device device, DType compute, int64_t rows, int64_t vocab) {
  const int64_t elements =
      head_loss_block(device, {.rows = rows, .dim = 1, .vocab = vocab}).elements();
  const size_t gradients = compute == DType::f32 ? 0 : size_of(compute);
  return elements * static_cast<int64_t>(sizeof(float) + gradients);
}

}  // namespace rodimus
