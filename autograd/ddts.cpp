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
    ddts_forward(exec, o.data<T>(), s, q.value.data<T>(), k.value.data<T>(), v.value.data<T>(),
                 g.value.data<float>(), static_cast<const float*>(s),
                 starts.defined() ? starts.data<int32_t>() : nullptr, dims);
  });

  Var result = make_output(ctx, o);
  if (!ctx.tape) return result;
  const auto backward = [q, k, v, g, starts, dims](Context& inner, std::span<Tensor> dy) {
    Tensor dq = empty_like(q.value), dk = empty_like(k.value), dv = empty_like(v.value),
           dg = empty_like(g.value);
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      ddts_backward(exec, dq.data<T>(), dk.data<T>(), dv.data<T>(), dg.data<float>(),
                    static_cast<float*>(nullptr), std::as_const(dy[0]).data<T>(),
                    static_cast<const float*>(nullptr), q.value.data<T>(), k.value.data<T>(),
                    v.value.data<T>(), g.value.data<float>(), static_cast<const float*>(nullptr),
                    starts.defined() ? starts.data<int32_t>() : nullptr, dims);
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
