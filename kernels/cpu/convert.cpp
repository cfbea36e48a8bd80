// Casts and simple whole-array passes, memory-bound: one read and one write per element.
#include "kernels/convert.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace rodimus {

using namespace cpu;

template <class To, class From>
void convert(Cpu& exec, To* y, const From* x, int64_t n) {
  parallel_for(exec, n, kParallelGrain, [&](int64_t begin, int64_t end) {
    simd::for_lanes(end - begin, [&](int64_t i, auto lanes) {
      simd::store(y + begin + i, simd::load(x + begin + i, lanes), lanes);
    });
  });
}

void fill(Cpu& exec, float* y, float value, int64_t n) {
  parallel_for(exec, n, kParallelGrain,
               [&](int64_t begin, int64_t end) { std::fill(y + begin, y + end, value); });
}

template <class T>
void accumulate(Cpu& exec, T* y, const T* x, int64_t n) {
  parallel_for(exec, n, kParallelGrain, [&](int64_t begin, int64_t end) {
    simd::for_lanes(end - begin, [&](int64_t i, auto lanes) {
      simd::store(y + begin + i,
                  simd::load(y + begin + i, lanes) + simd::load(x + begin + i, lanes), lanes);
    });
  });
}

template void convert(Cpu&, bf16*, const float*, int64_t);
template void convert(Cpu&, float*, const bf16*, int64_t);
template void convert(Cpu&, float*, const float*, int64_t);
template void accumulate(Cpu&, float*, const float*, int64_t);
template void accumulate(Cpu&, bf16*, const bf16*, int64_t);

}  // namespace rodimus
