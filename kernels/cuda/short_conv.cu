// Depthwise causal convolution. A thread takes one pack of channels through a chunk of tokens: the
// taps, the last inputs and, in backward, the open sums of dx stay in registers, and a batch of
// tokens is loaded at once to keep the memory busy. Chunks share nothing: the inputs just before a
// chunk are read twice, and backward recomputes the width - 1 tokens behind it. Memory: x is read
// and y written once, beside those seams.
#include "kernels/short_conv.h"

#include <algorithm>

#include "kernels/cuda/math.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/row_sums.h"
#include "kernels/cuda/runtime.h"
#include "kernels/memory.h"

namespace rodimus {
namespace {

using namespace cuda;

constexpr int kThreads = 128;
// On a multiprocessor at least: left alone, ptxas spills for one block more.
constexpr int kForwardBlocks = 4, kBackwardBlocks = 2;
// Taps that a kernel has registers for. A shorter filter leaves the first ones unused.
constexpr int kWidth = 4, kMaxWidth = 32;
// Tokens loaded at once.
template <int W>
constexpr int kBatch = W == kWidth ? 4 : 1;

template <class T>
struct Inputs {
  const T *x, *history;
  const int32_t* starts;
  ShortConvDims dims;
};

// What a thread works on: its channels d ... of the tokens [begin, end) of sequence b. Positions
// are 32-bit, as in `starts`: 64-bit ones take up to 45 registers more.
template <class T>
struct Work {
  const T *x, *history;  // of the sequence, at channel d; history may be null
  const int32_t* starts;
  int64_t b, d;
  int begin, end, length, channels, width;

  __device__ Work(const Inputs<T>& in, int pack, int chunk)
      : length(static_cast<int>(in.dims.T)),
        channels(static_cast<int>(in.dims.D)),
        width(static_cast<int>(in.dims.width)) {
    const int chunks = (length + chunk - 1) / chunk;
    b = blockIdx.x / chunks;
    d = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * pack;
    begin = static_cast<int>(blockIdx.x % chunks) * chunk;
    end = chunk < length - begin ? begin + chunk : length;
    x = in.x + b * length * channels + d;
    history = in.history == nullptr ? nullptr : in.history + b * (width - 1) * channels + d;
    starts = in.starts == nullptr ? nullptr : in.starts + b * length;
  }

  // The first of W taps that token t reads: the others lie before its document, before the history,
  // or are not part of the filter.
  template <int W>
  __device__ int first_tap(int t) const {
    const int start = starts == nullptr ? 0 : starts[t];
    const int visible = start == 0 && history != nullptr ? 1 - width : start;
    const int first = visible - (t - (W - 1)), unused = W - width;
    return first < unused ? unused : first;
  }

  // The channels of position t, which may lie outside the sequence.
  template <int N>
  __device__ Pack<N> at(int t) const {
    if (t >= length || t <= -width || (t < 0 && history == nullptr)) return Pack<N>{};
    return load<N>(t >= 0 ? x + row(t) : history + row(width - 1 + t));
  }
  __device__ int64_t row(int t) const { return int64_t{t} * channels; }
};

// The filters of a block's channels in shared memory, by tap, because device memory has them by
// channel. A thread reads and writes the columns of its own channels.
template <int N>
struct Filters {
  static constexpr int kChannels = kThreads * N;
  static constexpr int kStride = kChannels + 8;  // four taps of neighbours: 32 different banks
  float* taps;                                   // (width, kStride)
  int64_t begin;                                 // of the block's part of (D, width)
  int count, width;

  __device__ Filters(unsigned char* memory, const ShortConvDims& dims)
      : taps(reinterpret_cast<float*>(memory)),
        begin(int64_t{blockIdx.y} * kChannels * dims.width),
        width(static_cast<int>(dims.width)) {
    const int64_t rest = dims.D * dims.width - begin;
    count = rest < kChannels * width ? static_cast<int>(rest) : kChannels * width;
  }
  __device__ void read(const float* weight) const {
    for (int e = threadIdx.x; e < count; e += kThreads)
      taps[e % width * kStride + e / width] = weight[begin + e];
  }
  __device__ void write(float* weight) const {
    for (int e = threadIdx.x; e < count; e += kThreads)
      weight[begin + e] = taps[e % width * kStride + e / width];
  }
  // Tap i of W of this thread.
  template <int W>
  __device__ float* mine(int i) const {
    return taps + (i - (W - width)) * kStride + threadIdx.x * N;
  }
  static size_t bytes(int64_t width) { return width * kStride * sizeof(float); }
};

// The filter of one pack of channels, in registers.
template <int W, int N>
struct Filter {
  Pack<N> taps[W], bias;

  __device__ Filter(const Filters<N>& filters, const float* bias_of_pack)
      : bias(load<N>(bias_of_pack)) {
#pragma unroll
    for (int i = 0; i < W; ++i)
      taps[i] = i < W - filters.width ? Pack<N>{} : load<N>(filters.template mine<W>(i));
  }

  // Pre-activation of the token whose W inputs are at `recent`.
  __device__ Pack<N> dot(const Pack<N>* recent, int first) const {
    Pack<N> z = bias;
#pragma unroll
    for (int i = 0; i < W; ++i) {
      if (i < first) continue;  // not a product with zero: the input may be NaN
#pragma unroll
      for (int l = 0; l < N; ++l) z.v[l] += taps[i].v[l] * recent[i].v[l];
    }
    return z;
  }
};

// The last W - 1 become the first.
template <int W, int N>
__device__ __forceinline__ void next_batch(Pack<N> (&window)[W - 1 + kBatch<W>]) {
#pragma unroll
  for (int i = 0; i < W - 1; ++i) window[i] = window[i + kBatch<W>];
}

template <int W, int N, class T>
__global__ void __launch_bounds__(kThreads, kForwardBlocks)
    forward_kernel(T* y, Inputs<T> in, const float* weight, const float* bias, int chunk) {
  DYN_SHARED(memory);
  const Filters<N> filters(memory, in.dims);
  filters.read(weight);
  __syncthreads();  // filters complete
  const Work<T> my(in, N, chunk);
  if (my.d >= my.channels) return;
  const Filter<W, N> filter(filters, bias + my.d);
  T* const y_of = y + (my.x - in.x);
  Pack<N> recent[W - 1 + kBatch<W>];
#pragma unroll
  for (int i = 0; i < W - 1; ++i) recent[i] = my.template at<N>(my.begin - (W - 1) + i);
  for (int t0 = my.begin; t0 < my.end; t0 += kBatch<W>) {
#pragma unroll
    for (int j = 0; j < kBatch<W>; ++j) recent[W - 1 + j] = my.template at<N>(t0 + j);
#pragma unroll
    for (int j = 0; j < kBatch<W>; ++j) {
      const int t = t0 + j;
      if (t >= my.end) break;
      Pack<N> z = filter.dot(recent + j, my.template first_tap<W>(t));
#pragma unroll
      for (int l = 0; l < N; ++l) z.v[l] = silu(z.v[l]);
      store(y_of + my.row(t), z);
    }
    next_batch<W>(recent);
  }
}

template <class T>
struct Gradients {
  T *dx, *dhistory;
  float* lines;  // (blocks along tokens, D width + D): dweight, dbias
};

// Token t gives dz to its bias and, by each tap that it reads, to the tap and to an input. The
// input at t is complete when token t + W - 1 was here. dy, dx and dhistory are those of the
// sequence, at channel d.
template <int W, int N, class T>
__device__ void walk_backward(T* dx, T* dhistory, float* dbias, const T* dy, const Work<T>& my,
                              const Filters<N>& filters, const Filter<W, N>& filter) {
  Pack<N> dtaps[W]{}, dbias_sum{};
  Pack<N> recent[W - 1 + kBatch<W>], open[W - 1 + kBatch<W>]{};  // inputs and their gradients
#pragma unroll
  for (int i = 0; i < W - 1; ++i) recent[i] = my.template at<N>(my.begin - (W - 1) + i);
  const int seam = my.end + W - 1, last = seam < my.length ? seam : my.length;
  for (int t0 = my.begin; t0 < seam; t0 += kBatch<W>) {
    Pack<N> dz[kBatch<W>];
#pragma unroll
    for (int j = 0; j < kBatch<W>; ++j) {
      const int t = t0 + j;
      recent[W - 1 + j] = t < last ? load<N>(my.x + my.row(t)) : Pack<N>{};
      dz[j] = t < last ? load<N>(dy + my.row(t)) : Pack<N>{};
      open[W - 1 + j] = Pack<N>{};
    }
#pragma unroll
    for (int j = 0; j < kBatch<W>; ++j) {
      const int t = t0 + j;
      if (t >= last) break;
      const int first = my.template first_tap<W>(t);
      const Pack<N> z = filter.dot(recent + j, first);
#pragma unroll
      for (int l = 0; l < N; ++l) dz[j].v[l] *= silu_slope(z.v[l], sigmoid(z.v[l]));
#pragma unroll
      for (int i = 0; i < W; ++i) {
        if (i < first) continue;
#pragma unroll
        for (int l = 0; l < N; ++l) open[j + i].v[l] += filter.taps[i].v[l] * dz[j].v[l];
      }
      if (t >= my.end) continue;  // the next chunk sums this token
#pragma unroll
      for (int l = 0; l < N; ++l) dbias_sum.v[l] += dz[j].v[l];
#pragma unroll
      for (int i = 0; i < W; ++i) {
        if (i < first) continue;
#pragma unroll
        for (int l = 0; l < N; ++l) dtaps[i].v[l] += dz[j].v[l] * recent[j + i].v[l];
      }
    }
#pragma unroll
    for (int j = 0; j < kBatch<W>; ++j) {
      const int t = t0 + j - (W - 1);
      if (t >= my.begin && t < my.end) {
        store(dx + my.row(t), open[j]);
      } else if (my.begin == 0 && t < 0 && t > -my.width && dhistory != nullptr) {
        store(dhistory + my.row(my.width - 1 + t), open[j]);
      }
    }
    next_batch<W>(recent);
    next_batch<W>(open);
  }
#pragma unroll
  for (int i = 0; i < W; ++i)
    if (i >= W - my.width) store(filters.template mine<W>(i), dtaps[i]);
  store(dbias, dbias_sum);
}

template <int W, int N, class T>
__global__ void __launch_bounds__(kThreads, kBackwardBlocks)
    backward_kernel(Gradients<T> out, const T* dy, Inputs<T> in, const float* weight,
                    const float* bias, int chunk) {
  DYN_SHARED(memory);
  const Filters<N> filters(memory, in.dims);
  filters.read(weight);
  __syncthreads();  // filters complete
  const int64_t size = in.dims.D * in.dims.width;
  float* const line = out.lines + blockIdx.x * (size + in.dims.D);
  const Work<T> my(in, N, chunk);
  if (my.d < my.channels) {
    const int64_t at = my.x - in.x, old = my.b * (my.width - 1) * my.channels + my.d;
    walk_backward<W, N>(out.dx + at, out.dhistory == nullptr ? nullptr : out.dhistory + old,
                        line + size + my.d, dy + at, my, filters,
                        Filter<W, N>(filters, bias + my.d));
  }
  __syncthreads();  // the filters' place holds their gradients
  filters.write(line);
}

// How the work is cut: by the shape alone, so that sums have the same bits on every GPU. At least
// 32 tokens, which makes the seams of four taps a tenth of the loads, and at most 256; between them
// about a thousand blocks.
struct Grid {
  int chunk;
  dim3 blocks;

  Grid(const ShortConvDims& dims, int pack) {
    const int64_t channels = int64_t{kThreads} * pack, columns = (dims.D + channels - 1) / channels;
    chunk =
        static_cast<int>(std::clamp<int64_t>(dims.B * dims.T * columns / 1024 / 32 * 32, 32, 256));
    const int64_t chunks = (dims.T + chunk - 1) / chunk;
    blocks = dim3(narrow<unsigned>(dims.B * chunks), narrow<unsigned>(columns));
  }
};

void check_dims(const ShortConvDims& dims) {
  CHECK(dims.width >= 1 && dims.width <= kMaxWidth, "short_conv: width = ", dims.width,
        ", need 1 to ", kMaxWidth);
  (void)narrow<int>(dims.T);  // the kernels' positions
  (void)narrow<int>(dims.D * dims.width);
}

// f(kernel constants W and N): the authors' width in packs where they fit, else channel by channel.
template <int N, class F>
void with_shape(const ShortConvDims& dims, bool packs, F&& f) {
  if (dims.width > kWidth) {
    f.template operator()<kMaxWidth, 1>();
  } else if (packs) {
    f.template operator()<kWidth, N>();
  } else {
    f.template operator()<kWidth, 1>();
  }
}

}  // namespace

template <class T>
void short_conv_forward(Cuda& gpu, const ShortConvForwardArgs<T>& args) {
  const ShortConvDims& dims = args.dims;
  check_dims(dims);
  if (dims.B * dims.T * dims.D == 0) return;
  constexpr int kPack = 16 / sizeof(T);
  with_shape<kPack>(dims, packs_fit<kPack>(dims.D, args.y, args.x, args.bias, args.history),
                    [&]<int W, int N>() {
                      const Grid grid(dims, N);
                      CUDA_CHECK(dev::launch(grid.blocks, kThreads, Filters<N>::bytes(dims.width),
                                             gpu.stream, forward_kernel<W, N, T>, args.y,
                                             Inputs<T>{args.x, args.history, args.starts, dims},
                                             args.weight, args.bias, grid.chunk));
                    });
}

template <class T>
void short_conv_backward(Cuda& gpu, const ShortConvBackwardArgs<T>& args) {
  const ShortConvDims& dims = args.dims;
  check_dims(dims);
  if (dims.B * dims.T * dims.D == 0) return;
  // Packs of 4 in bf16 too: with 8 the open sums alone would take half the registers of a thread.
  constexpr int kPack = 4;
  with_shape<kPack>(
      dims,
      packs_fit<kPack>(dims.D, args.dx, args.dhistory, args.dy, args.x, args.bias, args.history),
      [&]<int W, int N>() {
        const Grid grid(dims, N);
        const int64_t count = grid.blocks.x, size = dims.D * dims.width, stride = size + dims.D;
        const memory::Scratch<float> lines(count * stride, Device::cuda);
        CUDA_CHECK(dev::launch(grid.blocks, kThreads, Filters<N>::bytes(dims.width), gpu.stream,
                               backward_kernel<W, N, T>,
                               Gradients<T>{args.dx, args.dhistory, lines.data()}, args.dy,
                               Inputs<T>{args.x, args.history, args.starts, dims}, args.weight,
                               args.bias, grid.chunk));
        add_lines(gpu, args.dweight, lines.data(), count, stride, size);
        add_lines(gpu, args.dbias, lines.data() + size, count, stride, dims.D);
      });
}

#define INSTANTIATE(T)                                                     \
  template void short_conv_forward(Cuda&, const ShortConvForwardArgs<T>&); \
  template void short_conv_backward(Cuda&, const ShortConvBackwardArgs<T>&);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
