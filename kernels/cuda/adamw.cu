// AdamW: reads p, m, v, g, writes p, m, v and the bf16 copy; 30 bytes an element, bound by memory.
#include "kernels/adamw.h"

#include "kernels/cuda/elementwise.cuh"

namespace rodimus {
namespace {

using namespace cuda;

struct Update {
  float *p, *m, *v;
  bf16* copy;
  const float* g;
  AdamWStep step;
  float step_size, v_scale, decay;  // the bias corrections, folded into factors

  template <int N>
  __device__ void operator()(int64_t i, Lanes<N>) const {
    const Pack<N> grad = load<N>(g + i);
    Pack<N> first = load<N>(m + i), second = load<N>(v + i), value = load<N>(p + i);
    for (int l = 0; l < N; ++l) {
      const float scaled = grad.v[l] * step.grad_scale;
      first.v[l] = first.v[l] * step.beta1 + scaled * (1.0f - step.beta1);
      second.v[l] = second.v[l] * step.beta2 + scaled * scaled * (1.0f - step.beta2);
      const float update = first.v[l] * step_size / (sqrtf(second.v[l] * v_scale) + step.eps);
      value.v[l] -= value.v[l] * decay + update;
    }
    store(m + i, first);
    store(v + i, second);
    store(p + i, value);
    if (copy != nullptr) store(copy + i, value);
  }
};

}  // namespace

void adamw(Cuda& gpu, float* p, float* m, float* v, bf16* copy, const float* g, int64_t n,
           AdamWStep step) {
  const Update update{p,
                      m,
                      v,
                      copy,
                      g,
                      step,
                      step.lr / step.bias_correction1,
                      1.0f / step.bias_correction2,
                      step.lr * step.weight_decay};
  elementwise<4>(gpu, n, packs_fit<4>(0, p, m, v, copy, g), update);
}

}  // namespace rodimus
