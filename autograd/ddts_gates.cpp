#include "kernels/ddts_gates.h"

#include "autograd/ops.h"
#include "kernels/dry.h"

namespace rodimus {

DdtsOperands ddts_gates(Context& ctx, const Var& qk, const Var& gates, const Var& bias,
                        float key_norm_eps) {
  const int64_t m = qk.value.dim(-1) / 2, rows = qk.value.numel() / (2 * m);
  check_shape("ddts_gates: gates", gates.value, qk.value.shape());
  check_shape("ddts_gates: bias", bias.value, {2 * m});
  const DdtsGatesDims dims{rows, m, key_norm_eps};

  Shape shape = qk.value.shape();
  shape.back() = m;
  const Named named("ddts_gates");
  Tensor q = Tensor::empty(shape, ctx.compute, ctx.device()), k = empty_like(q);
  Tensor g = Tensor::empty(shape, DType::f32, ctx.device());
  const double moved = bytes_of(qk.value, gates.value, q, k, g);
  const Op op{"ddts_gates", {0, moved}, {0, moved + bytes_of(qk.value, gates.value)}};
  const Profile::Scope scope(ctx.profile, op);
  count_scratch(ctx.exec, [&](const auto& machine) {
    return ddts_gates_scratch(machine, Direction::forward, dims);
  });
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    ddts_gates_forward<T>(exec, {.dims = dims,
                                 .qk = qk.value.data<T>(),
                                 .gates = gates.value.data<T>(),
                                 .bias = bias.value.data<float>(),
                                 .q = q.data<T>(),
                                 .k = k.data<T>(),
                                 .g = g.data<float>()});
  });

  DdtsOperands result{make_output(ctx, q), make_output(ctx, k), make_output(ctx, g)};
  if (!ctx.tape) return result;
  const auto backward = [qk, gates, bias, dims](Context& inner, std::span<Tensor> dy) {
    CHECK(dy[0].defined() && dy[1].defined() && dy[2].defined(),
          "ddts_gates: q, k and g are used together");
    Tensor dqk = empty_like(qk.value), dgates = empty_like(gates.value);
    GradSlot::Target dbias = bias.slot->target(inner, bias.value.shape(), DType::f32);
    CHECK(dbias.beta == 1, "ddts_gates: the bias needs a gradient buffer");
    count_scratch(inner.exec, [&](const auto& machine) {
      return ddts_gates_scratch(machine, Direction::backward, dims);
    });
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      ddts_gates_backward<T>(exec, {.dims = dims,
                                    .qk = qk.value.data<T>(),
                                    .gates = gates.value.data<T>(),
                                    .bias = bias.value.data<float>(),
                                    .dq = dy[0].data<T>(),
                                    .dk = dy[1].data<T>(),
                                    .dg = dy[2].data<float>(),
                                    .dqk = dqk.data<T>(),
                                    .dgates = dgates.data<T>(),
                                    .dbias = dbias.tensor.data<float>()});
    });
    qk.slot->add(inner, dqk);
    gates.slot->add(inner, dgates);
  };
  ctx.tape->record(op, {result.q.slot, result.k.slot, result.g.slot}, backward);
  return result;
}

}  // namespace rodimus
