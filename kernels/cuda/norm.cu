// RMS norm over rows, one block a row. The row waits in shared memory between the sum and the
// scaling; each thread reads back only what it wrote, so that takes no barrier. Backward gives each
// block a range of rows and keeps its part of dw in shared memory, again by owner. Memory: forward
// reads x and branch once and writes s and y once.
#include "kernels/norm.h"

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/row_sums.h"
#include "kernels/cuda/runtime.h"
#include "kernels/memory.h"

namespace rodimus {
namespace {

using namespace cuda;

constexpr int kPack = 4;  // of the f32 stream: 16 bytes
constexpr int kMaxThreads = 256;

template <int N, class T>
__global__ void __launch_bounds__(kMaxThreads)
    forward_kernel(float* s, T* y, float* rstd, const float* x, const T* branch, const float* w,
                   int64_t dim, float eps) {
  DYN_SHARED(memory);
  SHARED_ARRAY(float, partial, kMaxWarps);
  float* const row = reinterpret_cast<float*>(memory);  // (dim)
  const int64_t at = int64_t{blockIdx.x} * dim;
  float squares = 0;
  for (int64_t i = threadIdx.x * N; i < dim; i += blockDim.x * N) {
    Pack<N> value = load<N>(x + at + i);
    if (branch != nullptr) {
      const Pack<N> added = load<N>(branch + at + i);
#pragma unroll
      for (int l = 0; l < N; ++l) value.v[l] += added.v[l];
      store(s + at + i, value);
    }
    store(row + i, value);
#pragma unroll
    for (int l = 0; l < N; ++l) squares += value.v[l] * value.v[l];
  }
  const float scale = 1.0f / sqrtf(block_sum(squares, partial) / static_cast<float>(dim) + eps);
  if (threadIdx.x == 0) rstd[blockIdx.x] = scale;
  for (int64_t i = threadIdx.x * N; i < dim; i += blockDim.x * N) {
    Pack<N> value = load<N>(row + i);
    const Pack<N> weight = load<N>(w + i);
#pragma unroll
    for (int l = 0; l < N; ++l) value.v[l] *= scale * weight.v[l];
    store(y + at + i, value);
  }
}

// With n = s * rstd:  d = rstd * (dy w - n mean(dy w n)) + ds.
template <int N, class T>
__global__ void __launch_bounds__(kMaxThreads)
    backward_kernel(float* dx, T* dbranch, float* dw_lines, const T* dy, const float* ds,
                    const float* s, const float* w, const float* rstd, int64_t rows, int64_t dim,
                    float beta) {
  DYN_SHARED(memory);
  SHARED_ARRAY(float, partial, kMaxWarps);
  float* const normed = reinterpret_cast<float*>(memory);  // n, (dim)
  float* const scaled = normed + dim;                      // dy w, (dim)
  float* const dw = scaled + dim;                          // of this block's rows, (dim)
  const Pack<N> zero{};
  for (int64_t i = threadIdx.x * N; i < dim; i += blockDim.x * N) store(dw + i, zero);
  const int64_t end = rows * (blockIdx.x + 1) / gridDim.x;
  for (int64_t r = rows * blockIdx.x / gridDim.x; r < end; ++r) {
    const int64_t at = r * dim;
    const float scale = rstd[r];
    float dots = 0;
    for (int64_t i = threadIdx.x * N; i < dim; i += blockDim.x * N) {
      Pack<N> n = load<N>(s + at + i), g = load<N>(dy + at + i), sum = load<N>(dw + i);
      const Pack<N> weight = load<N>(w + i);
#pragma unroll
      for (int l = 0; l < N; ++l) {
        n.v[l] *= scale;
        sum.v[l] += g.v[l] * n.v[l];
        g.v[l] *= weight.v[l];
        dots += g.v[l] * n.v[l];
      }
      store(dw + i, sum);
      store(normed + i, n);
      store(scaled + i, g);
    }
    const float mean = block_sum(dots, partial) / static_cast<float>(dim);
    for (int64_t i = threadIdx.x * N; i < dim; i += blockDim.x * N) {
      const Pack<N> n = load<N>(normed + i);
      Pack<N> d = load<N>(scaled + i);
#pragma unroll
      for (int l = 0; l < N; ++l) d.v[l] = (d.v[l] - n.v[l] * mean) * scale;
      if (ds != nullptr) {  // ds may be dx: this thread reads what it then writes
        const Pack<N> other = load<N>(ds + at + i);
#pragma unroll
        for (int l = 0; l < N; ++l) d.v[l] += other.v[l];
      }
      if (dbranch != nullptr) store(dbranch + at + i, d);
      if (beta != 0) {
        const Pack<N> before = load<N>(dx + at + i);
#pragma unroll
        for (int l = 0; l < N; ++l) d.v[l] += before.v[l];
      }
      store(dx + at + i, d);
    }
  }
  float* const line = dw_lines + int64_t{blockIdx.x} * dim;
  for (int64_t i = threadIdx.x * N; i < dim; i += blockDim.x * N) store(line + i, load<N>(dw + i));
}

}  // namespace

template <class T>
void residual_norm_forward(Cuda& gpu, const ResidualNormForwardArgs<T>& args) {
  const int64_t rows = args.rows, dim = args.dim;
  if (rows == 0) return;
  const size_t shared = row_bytes(gpu, "residual_norm", sizeof(float), dim);
  const bool packs = packs_fit<kPack>(dim, args.s, args.y, args.x, args.branch, args.w);
  CUDA_CHECK(dev::launch(narrow<unsigned>(rows),
                         threads_for(packs ? dim / kPack : dim, kMaxThreads), shared, gpu.stream,
                         packs ? forward_kernel<kPack, T> : forward_kernel<1, T>, args.s, args.y,
                         args.rstd, args.x, args.branch, args.w, dim, args.eps));
}

template <class T>
void residual_norm_backward(Cuda& gpu, const ResidualNormBackwardArgs<T>& args) {
  const int64_t rows = args.rows, dim = args.dim;
  CHECK(args.beta == 0 || args.beta == 1, "residual_norm_backward: beta = ", args.beta,
        ", need 0 or 1");
  CHECK(args.beta == 0 || args.ds == nullptr || args.ds != args.dx,
        "residual_norm_backward: ds may be dx only when beta is 0");
  if (rows == 0) return;
  const size_t shared = row_bytes(gpu, "residual_norm_backward", 3 * sizeof(float), dim);
  const int64_t blocks = row_blocks(rows);
  const memory::Scratch<float> lines(blocks * dim, Device::cuda);
  const bool packs =
      packs_fit<kPack>(dim, args.dx, args.dbranch, args.dy, args.ds, args.s, args.w, lines.data());
  CUDA_CHECK(dev::launch(
      narrow<unsigned>(blocks), threads_for(packs ? dim / kPack : dim, kMaxThreads), shared,
      gpu.stream, packs ? backward_kernel<kPack, T> : backward_kernel<1, T>, args.dx, args.dbranch,
      lines.data(), args.dy, args.ds, args.s, args.w, args.rstd, rows, dim, args.beta));
  add_lines(gpu, args.dw, lines.data(), blocks, dim, dim);
}

#define INSTANTIATE(T)                                                           \
  template void residual_norm_forward(Cuda&, const ResidualNormForwardArgs<T>&); \
  template void residual_norm_backward(Cuda&, const ResidualNormBackwardArgs<T>&);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
