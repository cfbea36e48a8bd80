#include "kernels/ddts.h"

#include "autograd/ops.h"

namespace rodimus {

Var ddts(Context& ctx, const Var& q, const Var& k, const Var& v, const Var& g, const Tensor& starts,
         Tensor* state) {
  const DdtsDims dims{q.value.dim(0), q.value.dim(1), q.value.dim(2), v.value.dim(2)};
  check_shape("ddts: k", k.value, q.value.shape());
  check_shape("ddts: g", g.value, q.value.shape());
  check_shape("ddts: v", v.value, {dims.B, dims.T, dims.V});
  if (starts.defined()) check_shape("ddts: starts", starts, {dims.B, dims.T});
  if (state) check_shape("ddts: state", *state, {dims.B, dims.K, dims.V});
  CHECK(!(state && ctx.tape), "ddts: a carried state is for inference");

  Tensor o = empty_like(v.value);
  const double flops = static_cast<double>(dims.B) * ddts_flops(dims.T, dims.K, dims.V);
  const double inputs = bytes_of(q.value, k.value, v.value, g.value);
  const double states = state ? 2 * bytes_of(*state) : 0;  // read and written
  const Op op{
      "ddts", {flops, inputs + bytes_of(o) + states}, {2 * flops, 2 * inputs + bytes_of(o)}};
  const Profile::Scope scope(ctx.profile, op);
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    float* s = state ? state->data<float>() : nullptr;
    ddts_forward<T>(exec, {.dims = dims,
                           .q = q.value.data<T>(),
                           .k = k.value.data<T>(),
                           .v = v.value.data<T>(),
                           .g = g.value.data<float>(),
                           .state_in = s,
                           .starts = starts.defined() ? starts.data<int32_t>() : nullptr,
                           .o = o.data<T>(),
                           .state_out = s});
  });

  Var result = make_output(ctx, o);
  if (!ctx.tape) return result;
  const auto backward = [q, k, v, g, starts, dims](Context& inner, std::span<Tensor> dy) {
    Tensor dq = empty_like(q.value), dk = empty_like(k.value), dv = empty_like(v.value),
           dg = empty_like(g.value);
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      ddts_backward<T>(exec, {.dims = dims,
                              .q = q.value.data<T>(),
                              .k = k.value.data<T>(),
                              .v = v.value.data<T>(),
                              .g = g.value.data<float>(),
                              .starts = starts.defined() ? starts.data<int32_t>() : nullptr,
                              .d_o = dy[0].data<T>(),
                              .dq = dq.data<T>(),
                              .dk = dk.data<T>(),
                              .dv = dv.data<T>(),
                              .dg = dg.data<float>()});
    });
    q.slot->add(inner, dq);
    k.slot->add(inner, dk);
    v.slot->add(inner, dv);
    g.slot->add(inner, dg);
  };
  ctx.tape->record(op, {result.slot}, backward);
  return result;
}

}  // namespace rodimus
