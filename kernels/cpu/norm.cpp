// RMS norm over rows. A row fits into L1, so the second pass over it (scale, or the gradient after
// its dot product) reads the cache: one pass over memory.
#include "kernels/norm.h"

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace rodimus {

using namespace cpu;

using simd::Vec;

template <class T>
void residual_norm_forward(Cpu& exec, float* s, T* y, float* rstd, const float* x, const T* branch,
                           const float* w, int64_t rows, int64_t dim, float eps) {
  parallel_rows(exec, rows, dim, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x_row = x + r * dim;
      Vec squares{};
      if (branch != nullptr) {
        simd::for_lanes(dim, [&](int64_t i, auto lanes) {
          const Vec sum = simd::load(x_row + i, lanes) + simd::load(branch + r * dim + i, lanes);
          simd::store(s + r * dim + i, sum, lanes);
          squares += sum * sum;
        });
        x_row = s + r * dim;
      } else {
        simd::for_lanes(dim, [&](int64_t i, auto lanes) {
          const Vec value = simd::load(x_row + i, lanes);
          squares += value * value;
        });
      }
      const float scale =
          1.0f / std::sqrt(simd::reduce_add(squares) / static_cast<float>(dim) + eps);
      rstd[r] = scale;
      simd::for_lanes(dim, [&](int64_t i, auto lanes) {
        simd::store(y + r * dim + i,
                    simd::load(x_row + i, lanes) * scale * simd::load(w + i, lanes), lanes);
      });
    }
  });
}

// With n = s * rstd:  d = rstd * (dy w - n mean(dy w n)) + ds.
template <class T>
void residual_norm_backward(Cpu& exec, float* dx, T* dbranch, float* dw, const T* dy,
                            const float* ds, const float* s, const float* w, const float* rstd,
                            int64_t rows, int64_t dim, float beta) {
  CHECK(beta == 0 || beta == 1, "residual_norm_backward: beta = ", beta, ", need 0 or 1");
  CHECK(beta == 0 || ds == nullptr || ds != dx,
        "residual_norm_backward: ds may be dx only when beta is 0");
  sum_over_rows(exec, rows, {{dw, dim}}, [&](int64_t begin, int64_t end, float* dw_part) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = r * dim;
      const float scale = rstd[r];
      Vec dots{};
      simd::for_lanes(dim, [&](int64_t i, auto lanes) {
        const Vec normed = simd::load(s + row + i, lanes) * scale;
        const Vec dyn = simd::load(dy + row + i, lanes) * normed;
        simd::store(dw_part + i, simd::load(dw_part + i, lanes) + dyn, lanes);
        dots += dyn * simd::load(w + i, lanes);
      });
      const float mean = simd::reduce_add(dots) / static_cast<float>(dim);
      simd::for_lanes(dim, [&](int64_t i, auto lanes) {
        const Vec normed = simd::load(s + row + i, lanes) * scale;
        const Vec dyw = simd::load(dy + row + i, lanes) * simd::load(w + i, lanes);
        Vec d = (dyw - normed * mean) * scale;
        if (ds != nullptr) d += simd::load(ds + row + i, lanes);
        if (dbranch != nullptr) simd::store(dbranch + row + i, d, lanes);
        if (beta != 0) d += simd::load(dx + row + i, lanes);
        simd::store(dx + row + i, d, lanes);
      });
    }
  });
}

template void residual_norm_forward(Cpu&, float*, float*, float*, const float*, const float*,
                                    const float*, int64_t, int64_t, float);
template void residual_norm_forward(Cpu&, float*, bf16*, float*, const float*, const bf16*,
                                    const float*, int64_t, int64_t, float);
template void residual_norm_backward(Cpu&, float*, float*, float*, const float*, const float*,
                                     const float*, const float*, const float*, int64_t, int64_t,
                                     float);
template void residual_norm_backward(Cpu&, float*, bf16*, float*, const bf16*, const float*,
                                     const float*, const float*, const float*, int64_t, int64_t,
                                     float);

}  // namespace rodimus
