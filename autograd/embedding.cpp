#include "kernels/embedding.h"

#include "autograd/ops.h"
#include "kernels/dry.h"

namespace rodimus {

Var embedding(Context& ctx, const Tensor& ids, const Var& table) {
  const int64_t rows = ids.numel(), vocab = table.value.dim(0), dim = table.value.dim(1);
  Shape shape = ids.shape();
  shape.push_back(dim);
  const Named named("embedding");
  Tensor y = Tensor::empty(shape, DType::f32, ctx.device());
  const double moved = bytes_of(ids) + 2 * bytes_of(y);
  const Op op{"embedding", {0, moved}, {0, moved}};
  const Profile::Scope scope(ctx.profile, op);
  on_device(ctx.exec, [&](auto& exec) {
    embedding_forward(exec, y.data<float>(), table.value.data<float>(), ids.data<int32_t>(), rows,
                      dim, vocab);
  });

  Var result = make_output(ctx, y);
  if (!ctx.tape) return result;
  const auto backward = [ids, table, rows, dim, vocab](Context& inner, std::span<Tensor> dy) {
    GradSlot::Target dtable = table.slot->target(inner, table.value.shape(), DType::f32);
    CHECK(dtable.beta == 1, "embedding: the table needs a gradient buffer");
    count_scratch(inner.exec, [&](const auto& machine) {
      return embedding_scratch(machine, rows, dim, vocab);
    });
    on_device(inner.exec, [&](auto& exec) {
      embedding_backward(exec, dtable.tensor.data<float>(), std::as_const(dy[0]).data<float>(),
                         ids.data<int32_t>(), rows, dim, vocab);
    });
  };
  ctx.tape->record(op, {result.slot}, backward);
  return result;
}

}  // namespace rodimus
