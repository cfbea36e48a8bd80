#include "kernels/gated_norm.h"

#include "autograd/ops.h"
#include "kernels/dry.h"

namespace rodimus {

Var gated_norm(Context& ctx, const Var& o, const Var& c, const Var& skip_weight, const Var& gate,
               const Var& w, float eps) {
  const int64_t dim = o.value.dim(-1), rows = o.value.numel() / dim;
  check_shape("gated_norm: c", c.value, o.value.shape());
  check_shape("gated_norm: gate", gate.value, o.value.shape());
  check_shape("gated_norm: w", w.value, {dim});
  check_shape("gated_norm: skip_weight", skip_weight.value, {dim});
  const GatedNormDims dims{rows, dim, eps};

  const Named named("gated_norm");
  Tensor y = empty_like(o.value);
  Tensor rstd = Tensor::empty({rows}, DType::f32, ctx.device());
  const Op op{"gated_norm", {0, 4 * bytes_of(y) + bytes_of(rstd)}, {0, 7 * bytes_of(y)}};
  const Profile::Scope scope(ctx.profile, op);
  count_scratch(ctx.exec, [&](const auto& machine) {
    return gated_norm_scratch(machine, Direction::forward, dims);
  });
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    gated_norm_forward<T>(exec, {.dims = dims,
                                 .o = o.value.data<T>(),
                                 .c = c.value.data<T>(),
                                 .skip_weight = skip_weight.value.data<float>(),
                                 .gate = gate.value.data<T>(),
                                 .w = w.value.data<float>(),
                                 .y = y.data<T>(),
                                 .rstd = rstd.data<float>()});
  });

  Var result = make_output(ctx, y);
  if (!ctx.tape) return result;
  const auto backward = [o, c, skip_weight, gate, w, rstd, dims](Context& inner,
                                                                 std::span<Tensor> dy) {
    Tensor d_o = empty_like(o.value), dc = empty_like(c.value), dgate = empty_like(gate.value);
    GradSlot::Target dskip = skip_weight.slot->target(inner, skip_weight.value.shape(), DType::f32);
    GradSlot::Target dw = w.slot->target(inner, w.value.shape(), DType::f32);
    CHECK(dskip.beta == 1 && dw.beta == 1, "gated_norm: the weights need a gradient buffer");
    count_scratch(inner.exec, [&](const auto& machine) {
      return gated_norm_scratch(machine, Direction::backward, dims);
    });
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      gated_norm_backward<T>(exec, {.dims = dims,
                                    .o = o.value.data<T>(),
                                    .c = c.value.data<T>(),
                                    .skip_weight = skip_weight.value.data<float>(),
                                    .gate = gate.value.data<T>(),
                                    .w = w.value.data<float>(),
                                    .rstd = rstd.data<float>(),
                                    .dy = dy[0].data<T>(),
                                    .d_o = d_o.data<T>(),
                                    .dc = dc.data<T>(),
                                    .dgate = dgate.data<T>(),
                                    .dskip_weight = dskip.tensor.data<float>(),
                                    .dw = dw.tensor.data<float>()});
    });
    o.slot->add(inner, d_o);
    c.slot->add(inner, dc);
    gate.slot->add(inner, dgate);
  };
  ctx.tape->record(op, {result.slot}, backward);
  return result;
}

}  // namespace rodimus
