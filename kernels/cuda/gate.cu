// Elementwise gates: one read of every input, one write of every output.
#include "kernels/gate.h"

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/row_sums.h"
#include "kernels/memory.h"

namespace rodimus {
namespace {

using namespace cuda;

template <class T>
constexpr int kPack = 16 / sizeof(T);
constexpr int kThreads = 128;

template <class T>
struct SwigluForward {
  T* y;
  const T *u, *z;
  template <int N>
  __device__ void operator()(int64_t i, Lanes<N>) const {
    Pack<N> up = load<N>(u + i);
    const Pack<N> gate = load<N>(z + i);
    for (int l = 0; l < N; ++l) up.v[l] *= silu(gate.v[l]);
    store(y + i, up);
  }
};

template <class T>
struct SwigluBackward {
  T *du, *dz;
  const T *dy, *u, *z;
  template <int N>
  __device__ void operator()(int64_t i, Lanes<N>) const {
    const Pack<N> d = load<N>(dy + i), up = load<N>(u + i), gate = load<N>(z + i);
    Pack<N> dup, dgate;
    for (int l = 0; l < N; ++l) {
      const float s = sigmoid(gate.v[l]);
      dup.v[l] = d.v[l] * (gate.v[l] * s);
      dgate.v[l] = d.v[l] * up.v[l] * silu_slope(gate.v[l], s);
    }
    store(du + i, dup);
    store(dz + i, dgate);
  }
};

// A thread takes one pack of columns through a range of rows: bias and dbias stay in registers.
template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    sigmoid_forward_kernel(T* y, const T* z, const float* bias, const T* x, int64_t rows,
                           int64_t dim) {
  const int64_t j = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (j >= dim) return;
  const Pack<N> shift = load<N>(bias + j);
  const int64_t end = rows * (blockIdx.y + 1) / gridDim.y;
  for (int64_t r = rows * blockIdx.y / gridDim.y; r < end; ++r) {
    const Pack<N> gate = load<N>(z + r * dim + j);
    Pack<N> value = load<N>(x + r * dim + j);
    for (int l = 0; l < N; ++l) value.v[l] *= sigmoid(gate.v[l] + shift.v[l]);
    store(y + r * dim + j, value);
  }
}

template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    sigmoid_backward_kernel(T* dz, float* dbias_lines, T* dx, const T* dy, const T* z,
                            const float* bias, const T* x, int64_t rows, int64_t dim) {
  const int64_t j = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (j >= dim) return;
  const Pack<N> shift = load<N>(bias + j);
  Pack<N> dbias{};
  const int64_t end = rows * (blockIdx.y + 1) / gridDim.y;
  for (int64_t r = rows * blockIdx.y / gridDim.y; r < end; ++r) {
    const int64_t at = r * dim + j;
    const Pack<N> gate = load<N>(z + at), value = load<N>(x + at), d = load<N>(dy + at);
    Pack<N> dvalue, dgate;
    for (int l = 0; l < N; ++l) {
      const SigmoidPair s = sigmoid_pair(gate.v[l] + shift.v[l]);
      dvalue.v[l] = d.v[l] * s.value;
      dgate.v[l] = d.v[l] * value.v[l] * (s.value * s.complement);
      dbias.v[l] += dgate.v[l];
    }
    store(dx + at, dvalue);
    store(dz + at, dgate);
  }
  store(dbias_lines + int64_t{blockIdx.y} * dim + j, dbias);
}

unsigned column_blocks(int64_t dim, int pack) {
  const int64_t a_block = int64_t{kThreads} * pack;
  return narrow<unsigned>((dim + a_block - 1) / a_block);
}

}  // namespace

template <class T>
void swiglu_forward(Cuda& gpu, T* y, const T* u, const T* z, int64_t n) {
  elementwise<kPack<T>>(gpu, n, packs_fit<kPack<T>>(0, y, u, z), SwigluForward<T>{y, u, z});
}

template <class T>
void swiglu_backward(Cuda& gpu, T* du, T* dz, const T* dy, const T* u, const T* z, int64_t n) {
  elementwise<kPack<T>>(gpu, n, packs_fit<kPack<T>>(0, du, dz, dy, u, z),
                        SwigluBackward<T>{du, dz, dy, u, z});
}

template <class T>
void sigmoid_gate_forward(Cuda& gpu, const SigmoidGateForwardArgs<T>& args) {
  const int64_t rows = args.rows, dim = args.dim;
  if (rows == 0) return;
  constexpr int N = kPack<T>;
  const bool packs = packs_fit<N>(dim, args.y, args.z, args.bias, args.x);
  const dim3 grid(column_blocks(dim, packs ? N : 1), narrow<unsigned>(row_blocks(rows)));
  CUDA_CHECK(dev::launch(grid, kThreads, 0, gpu.stream,
                         packs ? sigmoid_forward_kernel<N, T> : sigmoid_forward_kernel<1, T>,
                         args.y, args.z, args.bias, args.x, rows, dim));
}

template <class T>
void sigmoid_gate_backward(Cuda& gpu, const SigmoidGateBackwardArgs<T>& args) {
  const int64_t rows = args.rows, dim = args.dim;
  if (rows == 0) return;
  constexpr int N = kPack<T>;
  const int64_t blocks = row_blocks(rows);
  const memory::Scratch<float> lines(blocks * dim, Device::cuda);
  const bool packs =
      packs_fit<N>(dim, args.dz, lines.data(), args.dx, args.dy, args.z, args.bias, args.x);
  const dim3 grid(column_blocks(dim, packs ? N : 1), narrow<unsigned>(blocks));
  CUDA_CHECK(dev::launch(grid, kThreads, 0, gpu.stream,
                         packs ? sigmoid_backward_kernel<N, T> : sigmoid_backward_kernel<1, T>,
                         args.dz, lines.data(), args.dx, args.dy, args.z, args.bias, args.x, rows,
                         dim));
  add_lines(gpu, args.dbias, lines.data(), blocks, dim, dim);
}

#define INSTANTIATE(T)                                                                 \
  template void swiglu_forward(Cuda&, T*, const T*, const T*, int64_t);                \
  template void swiglu_backward(Cuda&, T*, T*, const T*, const T*, const T*, int64_t); \
  template void sigmoid_gate_forward(Cuda&, const SigmoidGateForwardArgs<T>&);         \
  template void sigmoid_gate_backward(Cuda&, const SigmoidGateBackwardArgs<T>&);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
