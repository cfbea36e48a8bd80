#include "kernels/short_conv.h"

#include "autograd/ops.h"
#include "kernels/dry.h"

namespace rodimus {

Var short_conv(Context& ctx, const Var& x, const Var& weight, const Var& bias,
               const Tensor& history, const Tensor& starts) {
  const int64_t B = x.value.dim(0), T_ = x.value.dim(1), D = x.value.dim(2),
                width = weight.value.dim(-1);
  check_shape("short_conv: weight", weight.value, {D, 1, width});
  check_shape("short_conv: bias", bias.value, {D});
  if (history.defined()) check_shape("short_conv: history", history, {B, width - 1, D});
  if (starts.defined()) check_shape("short_conv: starts", starts, {B, T_});
  const ShortConvDims dims{B, T_, D, width};

  const Named named("short_conv");
  Tensor y = empty_like(x.value);
  const Op op{"short_conv", {0, 2 * bytes_of(y)}, {0, 3 * bytes_of(y)}};
  const Profile::Scope scope(ctx.profile, op);
  count_scratch(ctx.exec, [&](const auto& machine) {
    return short_conv_scratch(machine, Direction::forward, dims);
  });
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    short_conv_forward<T>(exec, {.dims = dims,
                                 .x = x.value.data<T>(),
                                 .weight = weight.value.data<float>(),
                                 .bias = bias.value.data<float>(),
                                 .history = data_or_null<T>(history),
                                 .starts = data_or_null<int32_t>(starts),
                                 .y = y.data<T>()});
  });

  Var result = make_output(ctx, y);
  if (!ctx.tape) return result;
  const auto backward = [x, weight, bias, history, starts, dims](Context& inner,
                                                                 std::span<Tensor> dy) {
    Tensor dx = empty_like(x.value);
    GradSlot::Target dweight = weight.slot->target(inner, weight.value.shape(), DType::f32);
    GradSlot::Target dbias = bias.slot->target(inner, bias.value.shape(), DType::f32);
    CHECK(dweight.beta == 1 && dbias.beta == 1, "short_conv: the weights need a gradient buffer");
    count_scratch(inner.exec, [&](const auto& machine) {
      return short_conv_scratch(machine, Direction::backward, dims);
    });
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      short_conv_backward<T>(exec, {.dims = dims,
                                    .x = x.value.data<T>(),
                                    .weight = weight.value.data<float>(),
                                    .bias = bias.value.data<float>(),
                                    .history = data_or_null<T>(history),
                                    .starts = data_or_null<int32_t>(starts),
                                    .dy = dy[0].data<T>(),
                                    .dx = dx.data<T>(),
                                    .dweight = dweight.tensor.data<float>(),
                                    .dbias = dbias.tensor.data<float>()});
    });
    x.slot->add(inner, dx);
  };
  ctx.tape->record(op, {result.slot}, backward);
  return result;
}

}  // namespace rodimus
