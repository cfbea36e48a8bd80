// AdamW: reads p, m, v, g, writes p, m, v and the bf16 copy; 30 bytes per element, memory-bound.
#include "kernels/adamw.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace rodimus {

using namespace cpu;

using simd::Vec;

void adamw(Cpu& exec, float* p, float* m, float* v, bf16* copy, const float* g, int64_t n,
           AdamWStep step) {
  // The divisions by the bias corrections are folded into factors.
  const float step_size = step.lr / step.bias_correction1;
  const float v_scale = 1.0f / step.bias_correction2;
  const float decay = step.lr * step.weight_decay;
  parallel_for(exec, n, kParallelGrain, [&](int64_t begin, int64_t end) {
    simd::for_lanes(end - begin, [&](int64_t offset, auto lanes) {
      const int64_t i = begin + offset;
      const Vec grad = simd::load(g + i, lanes) * step.grad_scale;
      const Vec first = simd::load(m + i, lanes) * step.beta1 + grad * (1.0f - step.beta1);
      const Vec second = simd::load(v + i, lanes) * step.beta2 + grad * grad * (1.0f - step.beta2);
      const Vec before = simd::load(p + i, lanes);
      const Vec update = first * step_size / (simd::sqrt(second * v_scale) + step.eps);
      const Vec after = before - (before * decay + update);
      simd::store(m + i, first, lanes);
      simd::store(v + i, second, lanes);
      simd::store(p + i, after, lanes);
      if (copy != nullptr) simd::store(copy + i, after, lanes);
    });
  });
}

}  // namespace rodimus
