// RMS norm over rows. A row fits into L1, so the second pass over it (the scaling, or the gradient
// after its dot product) hits the cache: memory is read once.
#include "kernels/norm.h"

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace rodimus {

using namespace cpu;

using simd::Vec;

template <class T>
void residual_norm_forward(Cpu& exec, const ResidualNormForwardArgs<T>& args) {
  const int64_t rows = args.rows, dim = args.dim;
  parallel_rows(exec, rows, dim, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x_row = args.x + r * dim;
      Vec squares{};
      if (args.branch != nullptr) {
        simd::for_lanes(dim, [&](int64_t i, auto lanes) {
          const Vec sum =
              simd::load(x_row + i, lanes) + simd::load(args.branch + r * dim + i, lanes);
          simd::store(args.s + r * dim + i, sum, lanes);
          squares += sum * sum;
        });
        x_row = args.s + r * dim;
      } else {
        simd::for_lanes(dim, [&](int64_t i, auto lanes) {
          const Vec value = simd::load(x_row + i, lanes);
          squares += value * value;
        });
      }
      const float scale =
          1.0f / std::sqrt(simd::reduce_add(squares) / static_cast<float>(dim) + args.eps);
      args.rstd[r] = scale;
      simd::for_lanes(dim, [&](int64_t i, auto lanes) {
        simd::store(args.y + r * dim + i,
                    simd::load(x_row + i, lanes) * scale * simd::load(args.w + i, lanes), lanes);
      });
    }
  });
}

// With n = s * rstd:  d = rstd * (dy w - n mean(dy w n)) + ds.
template <class T>
void residual_norm_backward(Cpu& exec, const ResidualNormBackwardArgs<T>& args) {
  const int64_t rows = args.rows, dim = args.dim;
  CHECK(args.beta == 0 || args.beta == 1, "residual_norm_backward: beta = ", args.beta,
        ", need 0 or 1");
  CHECK(args.beta == 0 || args.ds == nullptr || args.ds != args.dx,
        "residual_norm_backward: ds may be dx only when beta is 0");
  sum_over_rows(exec, rows, {{args.dw, dim}}, [&](int64_t begin, int64_t end, float* dw_part) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = r * dim;
      const float scale = args.rstd[r];
      Vec dots{};
      simd::for_lanes(dim, [&](int64_t i, auto lanes) {
        const Vec normed = simd::load(args.s + row + i, lanes) * scale;
        const Vec dyn = simd::load(args.dy + row + i, lanes) * normed;
        simd::store(dw_part + i, simd::load(dw_part + i, lanes) + dyn, lanes);
        dots += dyn * simd::load(args.w + i, lanes);
      });
      const float mean = simd::reduce_add(dots) / static_cast<float>(dim);
      simd::for_lanes(dim, [&](int64_t i, auto lanes) {
        const Vec normed = simd::load(args.s + row + i, lanes) * scale;
        const Vec dyw = simd::load(args.dy + row + i, lanes) * simd::load(args.w + i, lanes);
        Vec d = (dyw - normed * mean) * scale;
        if (args.ds != nullptr) d += simd::load(args.ds + row + i, lanes);
        if (args.dbranch != nullptr) simd::store(args.dbranch + row + i, d, lanes);
        if (args.beta != 0) d += simd::load(args.dx + row + i, lanes);
        simd::store(args.dx + row + i, d, lanes);
      });
    }
  });
}

ScratchBytes residual_norm_scratch(const Cpu&, int64_t rows, int64_t dim) {
  return {RowBlocks(rows, dim).bytes()};
}

template void residual_norm_forward(Cpu&, const ResidualNormForwardArgs<float>&);
template void residual_norm_forward(Cpu&, const ResidualNormForwardArgs<bf16>&);
template void residual_norm_backward(Cpu&, const ResidualNormBackwardArgs<float>&);
template void residual_norm_backward(Cpu&, const ResidualNormBackwardArgs<bf16>&);

}  // namespace rodimus
