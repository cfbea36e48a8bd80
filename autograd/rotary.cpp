#include "kernels/rotary.h"

#include "autograd/ops.h"
#include "kernels/dry.h"

namespace rodimus {

Var rotary(Context& ctx, const Var& x, float base, int64_t offset) {
  const RotaryDims dims{x.value.dim(0), x.value.dim(1), x.value.dim(2),
                        x.value.dim(3), base,           offset};
  CHECK(dims.D % 2 == 0, "rotary: head dimension ", dims.D, ", need an even one");
  const Named named("rotary");
  Tensor y = empty_like(x.value);
  const Op op{"rotary", {0, 2 * bytes_of(y)}, {0, 2 * bytes_of(y)}};
  const Profile::Scope scope(ctx.profile, op);
  count_scratch(ctx.exec, [&](const auto& machine) { return rotary_scratch(machine, dims); });
  dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
    rotary_forward(exec, y.data<T>(), x.value.data<T>(), dims);
  });

  Var result = make_output(ctx, y);
  if (!ctx.tape) return result;
  const auto backward = [x_slot = x.slot, dims](Context& inner, std::span<Tensor> dy) {
    Tensor dx = dy[0];  // rotated in place: nothing else refers to it
    count_scratch(inner.exec, [&](const auto& machine) { return rotary_scratch(machine, dims); });
    dispatch(inner.exec, inner.compute, [&]<class T>(auto& exec) {
      rotary_backward(exec, dx.data<T>(), std::as_const(dx).data<T>(), dims);
    });
    x_slot->add(inner, dx);
  };
  ctx.tape->record(op, {result.slot}, backward);
  return result;
}

}  // namespace rodimus
