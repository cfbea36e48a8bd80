// Elementwise gates: one read of every input, one write of every output.
#include "kernels/gate.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace rodimus {

using namespace cpu;

using simd::Vec;

template <class T>
void swiglu_forward(Cpu& exec, T* y, const T* u, const T* z, int64_t n) {
  parallel_for(exec, n, kParallelGrain, [&](int64_t begin, int64_t end) {
    simd::for_lanes(end - begin, [&](int64_t offset, auto lanes) {
      const int64_t i = begin + offset;
      simd::store(y + i, simd::silu(simd::load(z + i, lanes)) * simd::load(u + i, lanes), lanes);
    });
  });
}

template <class T>
void swiglu_backward(Cpu& exec, T* du, T* dz, const T* dy, const T* u, const T* z, int64_t n) {
  parallel_for(exec, n, kParallelGrain, [&](int64_t begin, int64_t end) {
    simd::for_lanes(end - begin, [&](int64_t offset, auto lanes) {
      const int64_t i = begin + offset;
      const Vec d = simd::load(dy + i, lanes), gate = simd::load(z + i, lanes);
      const Vec s = simd::sigmoid(gate), up = simd::load(u + i, lanes);
      simd::store(du + i, d * (gate * s), lanes);
      simd::store(dz + i, d * up * simd::silu_slope(gate, s), lanes);
    });
  });
}

template <class T>
void sigmoid_gate_forward(Cpu& exec, const SigmoidGateForwardArgs<T>& args) {
  const int64_t rows = args.rows, dim = args.dim;
  parallel_rows(exec, rows, dim, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin * dim; row < end * dim; row += dim) {
      simd::for_lanes(dim, [&](int64_t j, auto lanes) {
        const Vec gate = simd::load(args.z + row + j, lanes) + simd::load(args.bias + j, lanes);
        simd::store(args.y + row + j, simd::sigmoid(gate) * simd::load(args.x + row + j, lanes),
                    lanes);
      });
    }
  });
}

template <class T>
void sigmoid_gate_backward(Cpu& exec, const SigmoidGateBackwardArgs<T>& args) {
  const int64_t rows = args.rows, dim = args.dim;
  sum_over_rows(
      exec, rows, {{args.dbias, dim}}, [&](int64_t begin, int64_t end, float* dbias_part) {
        for (int64_t row = begin * dim; row < end * dim; row += dim) {
          simd::for_lanes(dim, [&](int64_t j, auto lanes) {
            const Vec gate = simd::load(args.z + row + j, lanes) + simd::load(args.bias + j, lanes);
            const simd::SigmoidPair s = simd::sigmoid_pair(gate);
            const Vec d = simd::load(args.dy + row + j, lanes);
            const Vec dgate = d * simd::load(args.x + row + j, lanes) * (s.value * s.complement);
            simd::store(args.dx + row + j, d * s.value, lanes);
            simd::store(args.dz + row + j, dgate, lanes);
            simd::store(dbias_part + j, simd::load(dbias_part + j, lanes) + dgate, lanes);
          });
        }
      });
}

ScratchBytes sigmoid_gate_scratch(const Cpu&, int64_t rows, int64_t dim) {
  return {RowBlocks(rows, dim).bytes()};
}

#define INSTANTIATE(T)                                                                \
  template void swiglu_forward(Cpu&, T*, const T*, const T*, int64_t);                \
  template void swiglu_backward(Cpu&, T*, T*, const T*, const T*, const T*, int64_t); \
  template void sigmoid_gate_forward(Cpu&, const SigmoidGateForwardArgs<T>&);         \
  template void sigmoid_gate_backward(Cpu&, const SigmoidGateBackwardArgs<T>&);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
