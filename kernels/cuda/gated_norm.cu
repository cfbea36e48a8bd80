// Skip, SiLU gate and RMS norm, a block for a range of rows. The weights and the row between its
// two passes wait in shared memory; each thread reads back only what it wrote, so that takes no
// barrier. Backward keeps the block's part of dw and dskip_weight there too. Memory: every array is
// read or written once. Packs of 4 in bf16 as well: a pack of 8 would take half a sector of the f32
// arrays at a time, and twice the registers.
#include "kernels/gated_norm.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/row_sums.h"
#include "kernels/cuda/runtime.h"
#include "kernels/memory.h"

namespace rodimus {
namespace {

using namespace cuda;

constexpr int kPack = 4;
constexpr int kMaxThreads = 512;
constexpr int64_t kMaxBlocks = 512;  // of forward: about four on each of 132 multiprocessors

// o + skip c.
template <int N>
__device__ __forceinline__ Pack<N> with_skip(Pack<N> o, const Pack<N>& skip, const Pack<N>& c) {
#pragma unroll
  for (int l = 0; l < N; ++l) o.v[l] += skip.v[l] * c.v[l];
  return o;
}

template <int N, class T>
__global__ void __launch_bounds__(kMaxThreads)
    forward_kernel(T* y, float* rstd, const T* o, const T* c, const float* skip_weight,
                   const T* gate, const float* w, GatedNormDims dims) {
  DYN_SHARED(memory);
  SHARED_ARRAY(float, partial, kMaxWarps);
  const int64_t dim = dims.dim, first = threadIdx.x * N, step = blockDim.x * N;
  float* const u = reinterpret_cast<float*>(memory);  // (dim) each
  float *const weight = u + dim, *const skip = weight + dim;
  for (int64_t i = first; i < dim; i += step) {
    store(weight + i, load<N>(w + i));
    if (c != nullptr) store(skip + i, load<N>(skip_weight + i));
  }
  const int64_t end = dims.rows * (blockIdx.x + 1) / gridDim.x;
  for (int64_t r = dims.rows * blockIdx.x / gridDim.x; r < end; ++r) {
    const int64_t at = r * dim;
    float squares = 0;
    for (int64_t i = first; i < dim; i += step) {
      Pack<N> value = load<N>(o + at + i);
      const Pack<N> z = load<N>(gate + at + i);
      if (c != nullptr) value = with_skip(value, load<N>(skip + i), load<N>(c + at + i));
#pragma unroll
      for (int l = 0; l < N; ++l) {
        value.v[l] *= silu(z.v[l]);
        squares += value.v[l] * value.v[l];
      }
      store(u + i, value);
    }
    const float mean = block_sum(squares, partial) / static_cast<float>(dim);
    const float scale = 1.0f / sqrtf(mean + dims.eps);
    if (threadIdx.x == 0) rstd[r] = scale;
    for (int64_t i = first; i < dim; i += step) {
      Pack<N> value = load<N>(u + i);
      const Pack<N> by = load<N>(weight + i);
#pragma unroll
      for (int l = 0; l < N; ++l) value.v[l] *= scale * by.v[l];
      store(y + at + i, value);
    }
  }
}

// Shared memory of backward, (dim) each: the sums, what the second pass over a row needs, and with
// kCopies the weights and sigmoids. Rows too long for these (6144 on an A100) read the weights anew
// and compute the sigmoids again. c, skip and dskip exist only with a skip connection.
template <class T, bool kCopies>
struct BackwardRow {
  float *dw, *weight, *sigmoids, *dskip, *skip;
  T *o, *gate, *dy, *c;

  __device__ BackwardRow(unsigned char* memory, int64_t dim, bool has_skip)
      : dw(reinterpret_cast<float*>(memory)),
        weight(dw + dim),
        sigmoids(weight + dim),
        dskip(kCopies ? sigmoids + dim : weight),
        skip(dskip + dim),
        o(reinterpret_cast<T*>(dw + floats(has_skip) * dim)),
        gate(o + dim),
        dy(gate + dim),
        c(dy + dim) {}
  static __host__ __device__ constexpr int64_t floats(bool has_skip) {
    return (kCopies ? 3 : 1) + (has_skip ? (kCopies ? 2 : 1) : 0);
  }
  static constexpr int64_t bytes_per_column(bool has_skip) {
    return floats(has_skip) * sizeof(float) + (has_skip ? 4 : 3) * sizeof(T);
  }
};

// With a = o + skip_weight c and n = u rstd:  du = rstd (dy w - n mean(dy w n)), then the product
// rule on u = a silu(gate). Without copies ptxas would aim at three blocks on a multiprocessor and
// spill; two are what the registers hold.
template <int N, class T, bool kCopies>
__global__ void __launch_bounds__(kMaxThreads, kCopies ? 0 : 2)
    backward_kernel(T* d_o, T* dc, T* dgate, float* lines, const T* dy, const T* o, const T* c,
                    const float* skip_weight, const T* gate, const float* w, const float* rstd,
                    GatedNormDims dims) {
  DYN_SHARED(memory);
  SHARED_ARRAY(float, partial, kMaxWarps);
  const bool has_skip = c != nullptr;
  const int64_t dim = dims.dim, first = threadIdx.x * N, step = blockDim.x * N;
  const BackwardRow<T, kCopies> row(memory, dim, has_skip);
  const float* const weight = kCopies ? row.weight : w;
  const float* const skip_factor = kCopies ? row.skip : skip_weight;
  const Pack<N> zero{};
  for (int64_t i = first; i < dim; i += step) {
    store(row.dw + i, zero);
    if (has_skip) store(row.dskip + i, zero);
    if constexpr (kCopies) {
      store(row.weight + i, load<N>(w + i));
      if (has_skip) store(row.skip + i, load<N>(skip_weight + i));
    }
  }
  const int64_t end = dims.rows * (blockIdx.x + 1) / gridDim.x;
  for (int64_t r = dims.rows * blockIdx.x / gridDim.x; r < end; ++r) {
    const int64_t at = r * dim;
    const float scale = rstd[r];
    float dots = 0;
    for (int64_t i = first; i < dim; i += step) {
      Pack<N> a = load<N>(o + at + i), s;
      const Pack<N> z = load<N>(gate + at + i), d = load<N>(dy + at + i);
      store(row.o + i, a);
      store(row.gate + i, z);
      store(row.dy + i, d);
      if (has_skip) {
        const Pack<N> skipped = load<N>(c + at + i);
        store(row.c + i, skipped);
        a = with_skip(a, load<N>(skip_factor + i), skipped);
      }
      const Pack<N> by = load<N>(weight + i);
      Pack<N> sum = load<N>(row.dw + i);
#pragma unroll
      for (int l = 0; l < N; ++l) {
        s.v[l] = sigmoid(z.v[l]);
        const float dyn = d.v[l] * (a.v[l] * (z.v[l] * s.v[l]) * scale);
        sum.v[l] += dyn;
        dots += dyn * by.v[l];
      }
      if constexpr (kCopies) store(row.sigmoids + i, s);
      store(row.dw + i, sum);
    }
    const float mean = block_sum(dots, partial) / static_cast<float>(dim);
    for (int64_t i = first; i < dim; i += step) {
      Pack<N> a = load<N>(row.o + i), skipped{}, skip{};
      if (has_skip) {
        skipped = load<N>(row.c + i);
        skip = load<N>(skip_factor + i);
        a = with_skip(a, skip, skipped);
      }
      const Pack<N> z = load<N>(row.gate + i), d = load<N>(row.dy + i), by = load<N>(weight + i);
      Pack<N> kept{}, da, dz;
      if constexpr (kCopies) kept = load<N>(row.sigmoids + i);
#pragma unroll
      for (int l = 0; l < N; ++l) {
        const float s = kCopies ? kept.v[l] : sigmoid(z.v[l]);
        const float gated = z.v[l] * s, n = a.v[l] * gated * scale;
        const float du = (d.v[l] * by.v[l] - n * mean) * scale;
        da.v[l] = du * gated;
        dz.v[l] = du * a.v[l] * silu_slope(z.v[l], s);
      }
      store(d_o + at + i, da);
      store(dgate + at + i, dz);
      if (!has_skip) continue;
      Pack<N> sum = load<N>(row.dskip + i);
#pragma unroll
      for (int l = 0; l < N; ++l) {
        sum.v[l] += da.v[l] * skipped.v[l];
        da.v[l] *= skip.v[l];
      }
      store(row.dskip + i, sum);
      store(dc + at + i, da);
    }
  }
  float* const line = lines + int64_t{blockIdx.x} * dim * (has_skip ? 2 : 1);
  for (int64_t i = first; i < dim; i += step) {
    store(line + i, load<N>(row.dw + i));
    if (has_skip) store(line + dim + i, load<N>(row.dskip + i));
  }
}

}  // namespace

template <class T>
void gated_norm_forward(Cuda& gpu, const GatedNormForwardArgs<T>& args) {
  const GatedNormDims& dims = args.dims;
  if (dims.rows == 0) return;
  const bool packs =
      packs_fit<kPack>(dims.dim, args.y, args.o, args.c, args.skip_weight, args.gate, args.w);
  const int64_t arrays = args.c == nullptr ? 2 : 3;
  CUDA_CHECK(dev::launch(narrow<unsigned>(std::min(dims.rows, kMaxBlocks)),
                         threads_for(packs ? dims.dim / kPack : dims.dim, kMaxThreads),
                         row_bytes(gpu, "gated_norm", arrays * sizeof(float), dims.dim), gpu.stream,
                         packs ? forward_kernel<kPack, T> : forward_kernel<1, T>, args.y, args.rstd,
                         args.o, args.c, args.skip_weight, args.gate, args.w, dims));
}

template <class T>
void gated_norm_backward(Cuda& gpu, const GatedNormBackwardArgs<T>& args) {
  const GatedNormDims& dims = args.dims;
  const bool has_skip = args.c != nullptr;
  CHECK(has_skip == (args.dc != nullptr) && has_skip == (args.dskip_weight != nullptr),
        "gated_norm_backward: dc and dskip_weight must be null exactly when c is");
  if (dims.rows == 0) return;
  const int64_t dim = dims.dim, blocks = row_blocks(dims.rows), stride = has_skip ? 2 * dim : dim;
  const memory::Scratch<float> lines(blocks * stride, Device::cuda);
  const bool packs = packs_fit<kPack>(dim, args.d_o, args.dc, args.dgate, lines.data(), args.dy,
                                      args.o, args.c, args.skip_weight, args.gate, args.w);
  const auto launch = [&](auto copies) {
    constexpr bool kCopies = copies.value;
    const int64_t per_column = BackwardRow<T, kCopies>::bytes_per_column(has_skip);
    CUDA_CHECK(
        dev::launch(narrow<unsigned>(blocks), threads_for(packs ? dim / kPack : dim, kMaxThreads),
                    row_bytes(gpu, "gated_norm_backward", per_column, dim), gpu.stream,
                    packs ? backward_kernel<kPack, T, kCopies> : backward_kernel<1, T, kCopies>,
                    args.d_o, args.dc, args.dgate, lines.data(), args.dy, args.o, args.c,
                    args.skip_weight, args.gate, args.w, args.rstd, dims));
  };
  if (dim <= longest_row(gpu, BackwardRow<T, true>::bytes_per_column(has_skip))) {
    launch(std::true_type{});
  } else {
    launch(std::false_type{});
  }
  add_lines(gpu, args.dw, lines.data(), blocks, stride, dim);
  if (has_skip) add_lines(gpu, args.dskip_weight, lines.data() + dim, blocks, stride, dim);
}

#define INSTANTIATE(T)                                                     \
  template void gated_norm_forward(Cuda&, const GatedNormForwardArgs<T>&); \
  template void gated_norm_backward(Cuda&, const GatedNormBackwardArgs<T>&);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
