#include "autograd/ops.h"
#include "kernels/dry.h"
#include "kernels/gemm.h"

namespace rodimus {

Var linear(Context& ctx, const Var& x, const Var& w, RowRange out_rows, LinearOutput output) {
  const int64_t in = x.value.dim(-1), rows = x.value.numel() / in;
  CHECK(w.value.shape().size() == 2 && w.value.dim(1) == in, "linear: weight ",
        to_string(w.value.shape()), " on an input of ", to_string(x.value.shape()));
  const int64_t begin = out_rows.begin,
                out = (out_rows.end < 0 ? w.value.dim(0) : out_rows.end) - begin;
  const Tensor weight = w.value.rows(begin, begin + out);  // (out, in)
  const bool f32_output = output == LinearOutput::f32;
  CHECK(!(f32_output && ctx.tape), "linear: f32 output is for inference");

  const DType y_type = f32_output ? DType::f32 : ctx.compute;
  const double y_bytes = static_cast<double>(rows * out) * static_cast<double>(size_of(y_type));
  const double flops = matmul_flops(rows, out, in), moved = bytes_of(x.value, weight) + y_bytes;
  const double dx_and_dw = bytes_of(x.value) + 4 * static_cast<double>(weight.numel());
  const Op op{"linear", {flops, moved}, {2 * flops, moved + dx_and_dw}, in, out};
  CHECK(output != LinearOutput::unread || ctx.tape, "linear: an unread output without a tape");
  const Named named("linear");
  Tensor y;
  if (output != LinearOutput::unread) {
    Shape shape = x.value.shape();
    shape.back() = out;
    y = Tensor::empty(shape, y_type, ctx.device());
    const Profile::Scope scope(ctx.profile, op);
    const GemmDims dims{.m = rows, .n = out, .k = in, .transpose_b = true};
    count_scratch(ctx.exec, [&](const auto& machine) {
      return gemm_scratch(machine, ctx.compute, y_type, dims);
    });
    dispatch(ctx.exec, ctx.compute, [&]<class T>(auto& exec) {
      if (f32_output) {
        gemm(exec, dims, y.data<float>(), x.value.data<T>(), weight.data<T>(), /*beta=*/0);
      } else {
        gemm(exec, dims, y.data<T>(), x.value.data<T>(), weight.data<T>(), /*beta=*/0);
      }
    });
  }

  Var result = make_output(ctx, y);
  if (!ctx.tape) return result;
  const auto backward = [x, w, weight, begin, rows, in, out](Context& inner,
                                                             std::span<Tensor> dys) {
    const Tensor& dy = dys[0];
    const DType type = inner.compute;
    if (w.slot) {  // dw += dy^T x
      GradSlot::Target dw = w.slot->target(inner, w.value.shape(), DType::f32);
      CHECK(w.slot->bound() || out == w.value.dim(0),
            "linear: part of a weight that has no gradient buffer");
      const GemmDims dims{.m = out, .n = in, .k = rows, .transpose_a = true};
      count_scratch(inner.exec, [&](const auto& machine) {
        return gemm_scratch(machine, type, DType::f32, dims);
      });
      dispatch(inner.exec, type, [&]<class T>(auto& exec) {
        gemm(exec, dims, dw.tensor.rows(begin, begin + out).template data<float>(), dy.data<T>(),
             x.value.data<T>(), dw.beta);
      });
    }
    if (!x.slot) return;
    const GemmDims dims{.m = rows, .n = in, .k = out};  // dx = dy w
    const bool adds = type == DType::f32;
    // gemm() adds to c only in f32. In bf16 the contribution is computed separately, rounded, and
    // added with another rounding, on every backend alike.
    GradSlot::Target dx = adds ? x.slot->target(inner, x.value.shape(), type)
                               : GradSlot::Target{empty_like(x.value), 0};
    count_scratch(inner.exec,
                  [&](const auto& machine) { return gemm_scratch(machine, type, type, dims); });
    dispatch(inner.exec, type, [&]<class T>(auto& exec) {
      gemm(exec, dims, dx.tensor.template data<T>(), dy.data<T>(), weight.data<T>(), dx.beta);
    });
    if (!adds) x.slot->add(inner, dx.tensor);
  };
  ctx.tape->record(op, {result.slot}, backward);
  return result;
}

}  // namespace rodimus
