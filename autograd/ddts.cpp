#include "kernels/ddts.h"

#include "autograd/ops.h"
#include "kernels/ddts_gates.h"

namespace rodimus {

DdtsOperands ddts_gates(Context& ctx, const Var& qk, const Var& gates, const Var& bias,
                        float key_norm_eps) {
  const int64_t m = qk.value.dim(-1) / 2, rows = qk.value.numel() / (2 * m);
  check_shape("ddts_gates: gates", gates.value, qk.value.shape());
  check_shape("ddts_gates: bias", bias.value, {2 * m});
  const DdtsGatesDims dims{rows, m, key_norm_eps};

  Shape shape = qk.value.shape();
  shape.back() = m;
  Tensor q = Tensor::empty(shape, ctx.compute, ctx.device()), k = empty_like(q);
  Tensor g = Tensor::empty(shape, DType::f32, ctx.device());
  const double moved = bytes_of(qk.value, gates.value, q, k, g);
  const Op op{"ddts_gates", {0, moved}, {0, moved + bytes_of(qk.value, gates.value)}};
  const Profile::Scope scope(ctx.profile, op);
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    ddts_gates_forward(exec, q.data<T>(), k.data<T>(), g.data<float>(), qk.value.data<T>(),
                       gates.value.data<T>(), bias.value.data<float>(), dims);
  });

  DdtsOperands result{make_output(ctx, q), make_output(ctx, k), make_output(ctx, g)};
  if (!ctx.tape) return result;
  const auto backward = [qk, gates, bias, dims](Context& inner, std::span<Tensor> dy) {
    CHECK(dy[0].defined() && dy[1].defined() && dy[2].defined(),
          "ddts_gates: q, k and g are used together");
    Tensor dqk = empty_like(qk.value), dgates = empty_like(gates.value);
    GradSlot::Target dbias = bias.slot->target(inner, bias.value.shape(), DType::f32);
    CHECK(dbias.beta == 1, "ddts_gates: the bias needs a gradient buffer");
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      ddts_gates_backward(exec, dqk.data<T>(), dgates.data<T>(), dbias.tensor.data<float>(),
                          std::as_const(dy[0]).data<T>(), std::as_const(dy[1]).data<T>(),
                          std::as_const(dy[2]).data<float>(), qk.value.data<T>(),
                          gates.value.data<T>(), bias.value.data<float>(), dims);
    });
    qk.slot->add(inner, dqk);
    gates.slot->add(inner, dgates);
  };
  ctx.tape->record(op, {result.q.slot, result.k.slot, result.g.slot}, backward);
  return result;
}

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
