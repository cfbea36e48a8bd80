// Rotary embedding: a thread takes a pack of angles of one token and turns that pair of packs of
// every head. The angle is reduced to a turn in double, where it is exact to 1e-9 at position 1e6,
// and only the fraction of a turn goes to f32.
#include "kernels/rotary.h"

#include <cmath>
#include <numbers>

#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/runtime.h"

namespace rodimus {
namespace {

using namespace cuda;

constexpr int kPack = 4;
constexpr int kThreads = 128;

// y = x rotated by direction * angle; y may be x. log2_base of dims.base.
template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    rotate_kernel(T* y, const T* x, RotaryDims dims, double log2_base, float direction) {
  const int64_t half = dims.D / 2, packs = half / N;
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= dims.B * dims.T * packs) return;
  const int64_t token = item / packs, i = item % packs * N;
  Pack<N> cosine, sine;
#pragma unroll
  for (int l = 0; l < N; ++l) {
    const double exponent = -2.0 * static_cast<double>(i + l) / static_cast<double>(dims.D);
    const double turns = static_cast<double>(dims.offset + token % dims.T) *
                         exp2(exponent * log2_base) * (0.5 / std::numbers::pi);
    sincospif(2.0f * static_cast<float>(turns - rint(turns)), &sine.v[l], &cosine.v[l]);
    sine.v[l] *= direction;
  }
  int64_t at = token * dims.H * dims.D + i;
  for (int64_t h = 0; h < dims.H; ++h, at += dims.D) {
    const Pack<N> a = load<N>(x + at), b = load<N>(x + at + half);
    Pack<N> first, second;
#pragma unroll
    for (int l = 0; l < N; ++l) {
      first.v[l] = a.v[l] * cosine.v[l] - b.v[l] * sine.v[l];
      second.v[l] = b.v[l] * cosine.v[l] + a.v[l] * sine.v[l];
    }
    store(y + at, first);
    store(y + at + half, second);
  }
}

template <class T>
void rotate(Cuda& gpu, T* y, const T* x, const RotaryDims& dims, float direction) {
  CHECK(dims.D % 2 == 0, "rotary: D = ", dims.D, ", need an even head dimension");
  if (dims.B * dims.T * dims.H * dims.D == 0) return;
  const bool packs = packs_fit<kPack>(dims.D / 2, y, x);
  const int64_t items = dims.B * dims.T * (dims.D / 2 / (packs ? kPack : 1));
  CUDA_CHECK(dev::launch(narrow<unsigned>((items + kThreads - 1) / kThreads), kThreads, 0,
                         gpu.stream, packs ? rotate_kernel<kPack, T> : rotate_kernel<1, T>, y, x,
                         dims, std::log2(static_cast<double>(dims.base)), direction));
}

}  // namespace

template <class T>
void rotary_forward(Cuda& gpu, T* y, const T* x, RotaryDims dims) {
  rotate(gpu, y, x, dims, 1);
}

template <class T>
void rotary_backward(Cuda& gpu, T* dx, const T* dy, RotaryDims dims) {
  rotate(gpu, dx, dy, dims, -1);
}

template void rotary_forward(Cuda&, float*, const float*, RotaryDims);
template void rotary_forward(Cuda&, bf16*, const bf16*, RotaryDims);
template void rotary_backward(Cuda&, float*, const float*, RotaryDims);
template void rotary_backward(Cuda&, bf16*, const bf16*, RotaryDims);

}  // namespace rodimus
