// Skip, SiLU gate and RMS norm, one row at a time; a row buffer keeps what the second pass over the
// row needs, so the exponentials are computed once.
#include "kernels/gated_norm.h"

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace rodimus {

using namespace cpu;
namespace {

using simd::Vec;

// One row of o + skip_weight * c.
template <class T>
struct Skip {
  const T *o, *c;
  const float* weight;
  template <class Lanes>
  Vec operator()(int64_t i, Lanes lanes) const {
    const Vec value = simd::load(o + i, lanes);
    return c == nullptr ? value : value + simd::load(weight + i, lanes) * simd::load(c + i, lanes);
  }
};

}  // namespace

template <class T>
void gated_norm_forward(Cpu& exec, const GatedNormForwardArgs<T>& args) {
  const GatedNormDims& dims = args.dims;
  const int64_t dim = dims.dim;
  const PerThread<float> workspace(exec, dim);
  parallel_rows(exec, dims.rows, dim, [&](int64_t begin, int64_t end) {
    float* u = workspace.mine();
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = r * dim;
      const Skip<T> skip{args.o + row, args.c == nullptr ? nullptr : args.c + row,
                         args.skip_weight};
      Vec squares{};
      simd::for_lanes(dim, [&](int64_t i, auto lanes) {
        const Vec value = skip(i, lanes) * simd::silu(simd::load(args.gate + row + i, lanes));
        simd::store(u + i, value, lanes);
        squares += value * value;
      });
      const float scale =
          1.0f / std::sqrt(simd::reduce_add(squares) / static_cast<float>(dim) + dims.eps);
      args.rstd[r] = scale;
      simd::for_lanes(dim, [&](int64_t i, auto lanes) {
        simd::store(args.y + row + i,
                    simd::load(u + i, lanes) * scale * simd::load(args.w + i, lanes), lanes);
      });
    }
  });
}

// With a = o + skip_weight c and n = u rstd:  du = rstd (dy w - n mean(dy w n)), then the product
// rule on u = a silu(gate).
template <class T>
void gated_norm_backward(Cpu& exec, const GatedNormBackwardArgs<T>& args) {
  const GatedNormDims& dims = args.dims;
  const int64_t dim = dims.dim;
  CHECK((args.c == nullptr) == (args.dc == nullptr) &&
            (args.c == nullptr) == (args.dskip_weight == nullptr),
        "gated_norm_backward: dc and dskip_weight must be null exactly when c is");
  const PerThread<float> workspace(exec, dim);
  const auto rows_of_block = [&](int64_t begin, int64_t end, float* dw_part) {
    float *dskip_part = dw_part + dim, *sigmoids = workspace.mine();
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = r * dim;
      const float scale = args.rstd[r];
      const Skip<T> skip{args.o + row, args.c == nullptr ? nullptr : args.c + row,
                         args.skip_weight};
      Vec dots{};
      simd::for_lanes(dim, [&](int64_t i, auto lanes) {
        const Vec z = simd::load(args.gate + row + i, lanes), s = simd::sigmoid(z);
        simd::store(sigmoids + i, s, lanes);
        const Vec normed = skip(i, lanes) * (z * s) * scale;
        const Vec dyn = simd::load(args.dy + row + i, lanes) * normed;
        simd::store(dw_part + i, simd::load(dw_part + i, lanes) + dyn, lanes);
        dots += dyn * simd::load(args.w + i, lanes);
      });
      const float mean = simd::reduce_add(dots) / static_cast<float>(dim);
      simd::for_lanes(dim, [&](int64_t i, auto lanes) {
        const Vec z = simd::load(args.gate + row + i, lanes), s = simd::load(sigmoids + i, lanes);
        const Vec a = skip(i, lanes), normed = a * (z * s) * scale;
        const Vec dyw = simd::load(args.dy + row + i, lanes) * simd::load(args.w + i, lanes);
        const Vec du = (dyw - normed * mean) * scale;
        const Vec da = du * (z * s);
        simd::store(args.dgate + row + i, du * a * simd::silu_slope(z, s), lanes);
        simd::store(args.d_o + row + i, da, lanes);
        if (args.c != nullptr) {
          simd::store(args.dc + row + i, da * simd::load(args.skip_weight + i, lanes), lanes);
          const Vec part = simd::load(dskip_part + i, lanes);
          simd::store(dskip_part + i, part + da * simd::load(args.c + row + i, lanes), lanes);
        }
      });
    }
  };
  sum_over_rows(exec, dims.rows, {{args.dw, dim}, {args.dskip_weight, dim}}, rows_of_block);
}

ScratchBytes gated_norm_scratch(const Cpu& exec, Direction direction, GatedNormDims dims) {
  const int64_t row = PerThread<float>::bytes(exec, dims.dim);
  if (direction == Direction::forward) return {row};
  return {row, RowBlocks(dims.rows, 2 * dims.dim).bytes()};
}

#define INSTANTIATE(T)                                                    \
  template void gated_norm_forward(Cpu&, const GatedNormForwardArgs<T>&); \
  template void gated_norm_backward(Cpu&, const GatedNormBackwardArgs<T>&);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
