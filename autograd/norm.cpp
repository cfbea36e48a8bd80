#include "kernels/norm.h"
#include "autograd/ops.h"
#include "kernels/gated_norm.h"

namespace rodimus {

ResidualNorm residual_norm(Context& ctx, const Var& x, const Var& branch, const Var& w, float eps) {
  const int64_t dim = x.value.dim(-1), rows = x.value.numel() / dim;
  const bool adds = branch.value.defined();
  CHECK(adds || !branch.slot, "residual_norm: a branch whose value a replay has left out");
  check_shape("residual_norm: w", w.value, {dim});
  if (adds) check_shape("residual_norm: branch", branch.value, x.value.shape());

  Tensor s = adds ? empty_like(x.value) : x.value;
  Tensor y = Tensor::empty(x.value.shape(), ctx.compute, ctx.device());
  Tensor rstd = Tensor::empty({rows}, DType::f32, ctx.device());
  const double moved = bytes_of(x.value, branch.value, y, rstd);
  const Op op{"residual_norm",
              {0, moved + (adds ? bytes_of(s) : 0)},       // s is x where nothing is added
              {0, moved + (adds ? 2 : 1) * bytes_of(s)}};  // s, the gradients of y, s, x, branch
  const Profile::Scope scope(ctx.profile, op);
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    residual_norm_forward(exec, adds ? s.data<float>() : nullptr, y.data<T>(), rstd.data<float>(),
                          x.value.data<float>(), adds ? branch.value.data<T>() : nullptr,
                          w.value.data<float>(), rows, dim, eps);
  });

  ResidualNorm result{adds ? make_output(ctx, s) : x, make_output(ctx, y)};
  if (!ctx.tape) return result;
  std::vector<std::shared_ptr<GradSlot>> outputs{result.norm.slot};
  if (adds) outputs.push_back(result.sum.slot);
  const auto backward = [x_slot = x.slot, branch_slot = branch.slot, w, s, rstd, rows, dim](
                            Context& inner, std::span<Tensor> dy) {
    CHECK(dy[0].defined(), "residual_norm: the norm was not used");
    Tensor ds = dy.size() > 1 ? dy[1] : Tensor{};
    // Without a gradient at x so far, the one of the sum is updated in place and handed on.
    const bool fresh = x_slot == nullptr || ds.defined();
    GradSlot::Target dx = fresh ? GradSlot::Target{ds.defined() ? ds : empty_like(s), 0}
                                : x_slot->target(inner, s.shape(), DType::f32);
    GradSlot::Target dw = w.slot->target(inner, w.value.shape(), DType::f32);
    CHECK(dw.beta == 1, "residual_norm: the weight needs a gradient buffer");
    Tensor dbranch =
        branch_slot ? Tensor::empty(s.shape(), inner.compute, inner.device()) : Tensor{};
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      residual_norm_backward(
          exec, dx.tensor.data<float>(), branch_slot ? dbranch.data<T>() : nullptr,
          dw.tensor.data<float>(), std::as_const(dy[0]).data<T>(),
          ds.defined() ? std::as_const(ds).data<float>() : nullptr, s.data<float>(),
          w.value.data<float>(), rstd.data<float>(), rows, dim, dx.beta);
    });
    if (fresh && x_slot) x_slot->add(inner, dx.tensor);
    if (branch_slot) branch_slot->add(inner, dbranch);
  };
  ctx.tape->record(op, std::move(outputs), backward);
  return result;
}

Var gated_norm(Context& ctx, const Var& o, const Var& c, const Var& skip_weight, const Var& gate,
               const Var& w, float eps) {
  const int64_t dim = o.value.dim(-1), rows = o.value.numel() / dim;
  check_shape("gated_norm: c", c.value, o.value.shape());
  check_shape("gated_norm: gate", gate.value, o.value.shape());
  check_shape("gated_norm: w", w.value, {dim});
  check_shape("gated_norm: skip_weight", skip_weight.value, {dim});
  const GatedNormDims dims{rows, dim, eps};

  Tensor y = empty_like(o.value);
  Tensor rstd = Tensor::empty({rows}, DType::f32, ctx.device());
  const Op op{"gated_norm", {0, 4 * bytes_of(y) + bytes_of(rstd)}, {0, 7 * bytes_of(y)}};
  const Profile::Scope scope(ctx.profile, op);
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    gated_norm_forward(exec, y.data<T>(), rstd.data<float>(), o.value.data<T>(), c.value.data<T>(),
                       skip_weight.value.data<float>(), gate.value.data<T>(), w.value.data<float>(),
                       dims);
  });

  Var result = make_output(ctx, y);
  if (!ctx.tape) return result;
  const auto backward = [o, c, skip_weight, gate, w, rstd, dims](Context& inner,
                                                                 std::span<Tensor> dy) {
    Tensor d_o = empty_like(o.value), dc = empty_like(c.value), dgate = empty_like(gate.value);
    GradSlot::Target dskip = skip_weight.slot->target(inner, skip_weight.value.shape(), DType::f32);
    GradSlot::Target dw = w.slot->target(inner, w.value.shape(), DType::f32);
    CHECK(dskip.beta == 1 && dw.beta == 1, "gated_norm: the weights need a gradient buffer");
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      gated_norm_backward(exec, d_o.data<T>(), dc.data<T>(), dskip.tensor.data<float>(),
                          dgate.data<T>(), dw.tensor.data<float>(), std::as_const(dy[0]).data<T>(),
                          o.value.data<T>(), c.value.data<T>(), skip_weight.value.data<float>(),
                          gate.value.data<T>(), w.value.data<float>(), rstd.data<float>(), dims);
    });
    o.slot->add(inner, d_o);
    c.slot->add(inner, dc);
    gate.slot->add(inner, dgate);
  };
  ctx.tape->record(op, {result.slot}, backward);
  return result;
}

}  // namespace rodimus
