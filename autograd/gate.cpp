#include "kernels/gate.h"

#include "autograd/ops.h"
#include "kernels/dry.h"

namespace rodimus {

Var swiglu(Context& ctx, const Var& u, const Var& z) {
  check_shape("swiglu: z", z.value, u.value.shape());
  const int64_t n = u.value.numel();
  const Named named("swiglu");
  Tensor y = empty_like(u.value);
  const Op op{"swiglu", {0, 3 * bytes_of(y)}, {0, 5 * bytes_of(y)}};
  const Profile::Scope scope(ctx.profile, op);
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    swiglu_forward(exec, y.data<T>(), u.value.data<T>(), z.value.data<T>(), n);
  });

  Var result = make_output(ctx, y);
  if (!ctx.tape) return result;
  const auto backward = [u, z, n](Context& inner, std::span<Tensor> dy) {
    Tensor du = empty_like(u.value), dz = empty_like(z.value);
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      swiglu_backward(exec, du.data<T>(), dz.data<T>(), std::as_const(dy[0]).data<T>(),
                      u.value.data<T>(), z.value.data<T>(), n);
    });
    u.slot->add(inner, du);
    z.slot->add(inner, dz);
  };
  ctx.tape->record(op, {result.slot}, backward);
  return result;
}

Var sigmoid_gate(Context& ctx, const Var& z, const Var& bias, const Var& x) {
  const int64_t dim = x.value.dim(-1), rows = x.value.numel() / dim;
  check_shape("sigmoid_gate: z", z.value, x.value.shape());
  check_shape("sigmoid_gate: bias", bias.value, {dim});
  const Named named("sigmoid_gate");
  Tensor y = empty_like(x.value);
  const Op op{"sigmoid_gate", {0, 3 * bytes_of(y)}, {0, 5 * bytes_of(y)}};
  const Profile::Scope scope(ctx.profile, op);
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    sigmoid_gate_forward<T>(exec, {.rows = rows,
                                   .dim = dim,
                                   .z = z.value.data<T>(),
                                   .x = x.value.data<T>(),
                                   .bias = bias.value.data<float>(),
                                   .y = y.data<T>()});
  });

  Var result = make_output(ctx, y);
  if (!ctx.tape) return result;
  const auto backward = [z, bias, x, rows, dim](Context& inner, std::span<Tensor> dy) {
    Tensor dz = empty_like(z.value), dx = empty_like(x.value);
    GradSlot::Target dbias = bias.slot->target(inner, bias.value.shape(), DType::f32);
    CHECK(dbias.beta == 1, "sigmoid_gate: the bias needs a gradient buffer");
    count_scratch(inner.exec,
                  [&](const auto& machine) { return sigmoid_gate_scratch(machine, rows, dim); });
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      sigmoid_gate_backward<T>(exec, {.rows = rows,
                                      .dim = dim,
                                      .z = z.value.data<T>(),
                                      .x = x.value.data<T>(),
                                      .bias = bias.value.data<float>(),
                                      .dy = dy[0].data<T>(),
                                      .dz = dz.data<T>(),
                                      .dx = dx.data<T>(),
                                      .dbias = dbias.tensor.data<float>()});
    });
    z.slot->add(inner, dz);
    x.slot->add(inner, dx);
  };
  ctx.tape->record(op, {result.slot}, backward);
  return result;
}

}  // namespace rodimus
