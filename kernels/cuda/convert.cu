// Casts and simple whole-array passes: bound by memory bandwidth.
#include "kernels/convert.h"

#include "kernels/cuda/elementwise.cuh"

namespace rodimus {
namespace {

using namespace cuda;

template <class To, class From>
struct Convert {
  To* y;
  const From* x;
  template <int N>
  __device__ void operator()(int64_t i, Lanes<N>) const {
    store(y + i, load<N>(x + i));
  }
};

struct Fill {
  float* y;
  float value;
  template <int N>
  __device__ void operator()(int64_t i, Lanes<N>) const {
    Pack<N> pack;
    for (int l = 0; l < N; ++l) pack.v[l] = value;
    store(y + i, pack);
  }
};

template <class T>
struct Accumulate {
  T* y;
  const T* x;
  template <int N>
  __device__ void operator()(int64_t i, Lanes<N>) const {
    Pack<N> sum = load<N>(y + i);
    const Pack<N> added = load<N>(x + i);
    for (int l = 0; l < N; ++l) sum.v[l] += added.v[l];
    store(y + i, sum);
  }
};

}  // namespace

template <class To, class From>
void convert(Cuda& gpu, To* y, const From* x, int64_t n) {
  elementwise<4>(gpu, n, packs_fit<4>(0, y, x), Convert<To, From>{y, x});
}

void fill(Cuda& gpu, float* y, float value, int64_t n) {
  elementwise<4>(gpu, n, packs_fit<4>(0, y), Fill{y, value});
}

template <class T>
void accumulate(Cuda& gpu, T* y, const T* x, int64_t n) {
  constexpr int kPack = 16 / sizeof(T);
  elementwise<kPack>(gpu, n, packs_fit<kPack>(0, y, x), Accumulate<T>{y, x});
}

template void convert(Cuda&, bf16*, const float*, int64_t);
template void convert(Cuda&, float*, const bf16*, int64_t);
template void convert(Cuda&, float*, const float*, int64_t);
template void accumulate(Cuda&, float*, const float*, int64_t);
template void accumulate(Cuda&, bf16*, const bf16*, int64_t);

}  // namespace rodimus
