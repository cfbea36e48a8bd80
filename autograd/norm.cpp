#include "kernels/norm.h"

#include "autograd/ops.h"
#include "kernels/dry.h"

namespace rodimus {

ResidualNorm residual_norm(Context& ctx, const Var& x, const Var& branch, const Var& w, float eps) {
  const int64_t dim = x.value.dim(-1), rows = x.value.numel() / dim;
  const bool adds = branch.value.defined();
  CHECK(adds || !branch.slot, "residual_norm: a branch whose value a replay has left out");
  check_shape("residual_norm: w", w.value, {dim});
  if (adds) check_shape("residual_norm: branch", branch.value, x.value.shape());

  const Named named("residual_norm");
  Tensor s = adds ? empty_like(x.value) : x.value;
  Tensor y = Tensor::empty(x.value.shape(), ctx.compute, ctx.device());
  Tensor rstd = Tensor::empty({rows}, DType::f32, ctx.device());
  const double moved = bytes_of(x.value, branch.value, y, rstd);
  const Op op{"residual_norm",
              {0, moved + (adds ? bytes_of(s) : 0)},       // s is x when nothing is added
              {0, moved + (adds ? 2 : 1) * bytes_of(s)}};  // s, the gradients of y, s, x, branch
  const Profile::Scope scope(ctx.profile, op);
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    residual_norm_forward<T>(exec, {.rows = rows,
                                    .dim = dim,
                                    .eps = eps,
                                    .x = x.value.data<float>(),
                                    .branch = adds ? branch.value.data<T>() : nullptr,
                                    .w = w.value.data<float>(),
                                    .s = adds ? s.data<float>() : nullptr,
                                    .y = y.data<T>(),
                                    .rstd = rstd.data<float>()});
  });

  ResidualNorm result{adds ? make_output(ctx, s) : x, make_output(ctx, y)};
  if (!ctx.tape) return result;
  std::vector<std::shared_ptr<GradSlot>> outputs{result.norm.slot};
  if (adds) outputs.push_back(result.sum.slot);
  const auto backward = [x_slot = x.slot, branch_slot = branch.slot, w, s, rstd, rows, dim](
                            Context& inner, std::span<Tensor> dy) {
    CHECK(dy[0].defined(), "residual_norm: the norm was not used");
    Tensor ds = dy.size() > 1 ? dy[1] : Tensor{};
    // If x has no gradient yet, the gradient of the sum is updated in place and passed on.
    const bool fresh = x_slot == nullptr || ds.defined();
    GradSlot::Target dx = fresh ? GradSlot::Target{ds.defined() ? ds : empty_like(s), 0}
                                : x_slot->target(inner, s.shape(), DType::f32);
    GradSlot::Target dw = w.slot->target(inner, w.value.shape(), DType::f32);
    CHECK(dw.beta == 1, "residual_norm: the weight needs a gradient buffer");
    Tensor dbranch =
        branch_slot ? Tensor::empty(s.shape(), inner.compute, inner.device()) : Tensor{};
    count_scratch(inner.exec,
                  [&](const auto& machine) { return residual_norm_scratch(machine, rows, dim); });
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      residual_norm_backward<T>(exec, {.rows = rows,
                                       .dim = dim,
                                       .beta = dx.beta,
                                       .s = s.data<float>(),
                                       .w = w.value.data<float>(),
                                       .rstd = rstd.data<float>(),
                                       .dy = dy[0].data<T>(),
                                       .ds = data_or_null<float>(ds),
                                       .dx = dx.tensor.data<float>(),
                                       .dbranch = branch_slot ? dbranch.data<T>() : nullptr,
                                       .dw = dw.tensor.data<float>()});
    });
    if (fresh && x_slot) x_slot->add(inner, dx.tensor);
    if (branch_slot) branch_slot->add(inner, dbranch);
  };
  ctx.tape->record(op, std::move(outputs), backward);
  return result;
}

}  // namespace rodimus
