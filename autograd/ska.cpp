#include "kernels/ska.h"

#include "autograd/ops.h"
#include "kernels/dry.h"

namespace rodimus {

Var ska(Context& ctx, const Var& q, const Var& k, const Var& v, int64_t left,
        const Tensor& starts) {
  const SkaDims dims{.B = q.value.dim(0),
                     .T = q.value.dim(1),
                     .H = q.value.dim(2),
                     .D = q.value.dim(3),
                     .Hk = k.value.dim(2),
                     .Hv = v.value.dim(2),
                     .Tk = k.value.dim(1),
                     .left = left};
  check_shape("ska: k", k.value, {dims.B, dims.Tk, dims.Hk, dims.D});
  check_shape("ska: v", v.value, {dims.B, dims.Tk, dims.Hv, dims.D});
  CHECK(dims.H % dims.Hk == 0 && dims.H % dims.Hv == 0, "ska: ", dims.H, " query heads over ",
        dims.Hk, " key heads and ", dims.Hv, " value heads; both must divide");
  CHECK(dims.Tk >= dims.T, "ska: ", dims.T, " queries over ", dims.Tk, " keys");
  if (starts.defined()) check_shape("ska: starts", starts, {dims.B, dims.T});

  const Named named("ska");
  Tensor o = empty_like(q.value);
  Tensor lse = Tensor::empty({dims.B, dims.H, dims.T}, DType::f32, ctx.device());
  const double flops =
      static_cast<double>(dims.B) * ska_flops(dims.T, dims.Tk, dims.H * dims.D, left);
  const double moved = bytes_of(q.value, k.value, v.value, o, lse);
  const Op op{"ska", {flops, moved}, {2 * flops, 2 * moved}};
  const Profile::Scope scope(ctx.profile, op);
  count_scratch(ctx.exec, [&](const auto& machine) { return ska_forward_scratch(machine, dims); });
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    ska_forward<T>(exec, {.dims = dims,
                          .q = q.value.data<T>(),
                          .k = k.value.data<T>(),
                          .v = v.value.data<T>(),
                          .starts = data_or_null<int32_t>(starts),
                          .o = o.data<T>(),
                          .lse = lse.data<float>()});
  });

  Var result = make_output(ctx, o);
  if (!ctx.tape) return result;
  const auto backward = [q, k, v, o, lse, starts, dims](Context& inner, std::span<Tensor> dy) {
    Tensor dq = empty_like(q.value), dk = empty_like(k.value), dv = empty_like(v.value);
    count_scratch(inner.exec,
                  [&](const auto& machine) { return ska_backward_scratch(machine, dims); });
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      ska_backward<T>(exec, {.dims = dims,
                             .q = q.value.data<T>(),
                             .k = k.value.data<T>(),
                             .v = v.value.data<T>(),
                             .starts = data_or_null<int32_t>(starts),
                             .o = o.data<T>(),
                             .lse = lse.data<float>(),
                             .d_o = dy[0].data<T>(),
                             .dq = dq.data<T>(),
                             .dk = dk.data<T>(),
                             .dv = dv.data<T>()});
    });
    q.slot->add(inner, dq);
    k.slot->add(inner, dk);
    v.slot->add(inner, dv);
  };
  ctx.tape->record(op, {result.slot}, backward);
  return result;
}

}  // namespace rodimus
