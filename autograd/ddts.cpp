#include "kernels/ddts.h"

#include "autograd/ops.h"
#include "kernels/dry.h"

namespace rodimus {

DdtsResult ddts(Context& ctx, const Var& q, const Var& k, const Var& v, const Var& g,
                const Tensor& starts, const Var& state, FinalState final_state) {
  const DdtsDims dims{q.value.dim(0), q.value.dim(1), q.value.dim(2), v.value.dim(2)};
  check_shape("ddts: k", k.value, q.value.shape());
  check_shape("ddts: g", g.value, q.value.shape());
  check_shape("ddts: v", v.value, {dims.B, dims.T, dims.V});
  if (starts.defined()) check_shape("ddts: starts", starts, {dims.B, dims.T});
  if (state.value.defined()) check_shape("ddts: state", state.value, {dims.B, dims.K, dims.V});

  const Named named("ddts");
  Tensor o = empty_like(v.value), state_out;
  if (final_state == FinalState::wanted)
    state_out = Tensor::empty({dims.B, dims.K, dims.V}, DType::f32, ctx.device());
  const double flops = static_cast<double>(dims.B) * ddts_flops(dims.T, dims.K, dims.V);
  const double inputs = bytes_of(q.value, k.value, v.value, g.value);
  const double states = bytes_of(state.value, state_out);
  const Op op{"ddts",
              {flops, inputs + bytes_of(o) + states},
              {2 * flops, 2 * inputs + bytes_of(o) + states + bytes_of(state.value)}};
  const Profile::Scope scope(ctx.profile, op);
  count_scratch(ctx.exec, [&](const auto& machine) {
    return ddts_forward_scratch(machine, ctx.compute, dims);
  });
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    ddts_forward<T>(exec, {.dims = dims,
                           .q = q.value.data<T>(),
                           .k = k.value.data<T>(),
                           .v = v.value.data<T>(),
                           .g = g.value.data<float>(),
                           .state_in = data_or_null<float>(state.value),
                           .starts = data_or_null<int32_t>(starts),
                           .o = o.data<T>(),
                           .state_out = data_or_null<float>(state_out)});
  });

  DdtsResult result{make_output(ctx, o), {}};
  if (state_out.defined()) result.state = make_output(ctx, state_out);
  if (!ctx.tape) return result;
  std::vector<std::shared_ptr<GradSlot>> outputs{result.o.slot};
  if (state_out.defined()) outputs.push_back(result.state.slot);
  const auto backward = [q, k, v, g, state, starts, dims](Context& inner, std::span<Tensor> dy) {
    Tensor dq = empty_like(q.value), dk = empty_like(k.value), dv = empty_like(v.value),
           dg = empty_like(g.value);
    Tensor dstate_in = state.slot ? empty_like(state.value) : Tensor{};
    const Tensor dstate_out = dy.size() > 1 ? dy[1] : Tensor{};
    // Only the final state may have been used.
    const Tensor d_o =
        dy[0].defined() ? dy[0]
                        : convert_to(inner.exec, zeros(inner.exec, v.value.shape()), inner.compute);
    count_scratch(inner.exec, [&](const auto& machine) {
      return ddts_backward_scratch(machine, inner.compute, dims);
    });
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      ddts_backward<T>(exec, {.dims = dims,
                              .q = q.value.data<T>(),
                              .k = k.value.data<T>(),
                              .v = v.value.data<T>(),
                              .g = g.value.data<float>(),
                              .state_in = data_or_null<float>(state.value),
                              .starts = data_or_null<int32_t>(starts),
                              .d_o = d_o.data<T>(),
                              .dstate_out = data_or_null<float>(dstate_out),
                              .dq = dq.data<T>(),
                              .dk = dk.data<T>(),
                              .dv = dv.data<T>(),
                              .dg = dg.data<float>(),
                              .dstate_in = data_or_null<float>(dstate_in)});
    });
    q.slot->add(inner, dq);
    k.slot->add(inner, dk);
    v.slot->add(inner, dv);
    g.slot->add(inner, dg);
    if (state.slot) state.slot->add(inner, dstate_in);
  };
  ctx.tape->record(op, std::move(outputs), backward);
  return result;
}

}  // namespace rodimus
