// Depthwise causal convolution, vectorised over channels. With the authors' width, and away from
// borders, four tokens are processed at once: their inputs, weights and gradients stay in
// registers, whereas single tokens would read eleven rows each. Backward walks each block of rows
// from late to early with a ring of the last `width` rows of d(pre-activation): nothing of size
// (B,T,D) is stored, and the rows just after a block are recomputed.
#include "kernels/short_conv.h"

#include <array>
#include <type_traits>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace rodimus {

using namespace cpu;
namespace {

using simd::Vec;

constexpr int64_t kMaxWidth = 32;
constexpr int64_t kGroup = 4;  // tokens processed at once, and the only width for which they are

constexpr int64_t kStrip = 256;  // channels per strip: their gradients stay in L1 between the loops

// Row stride of the (width, D) workspaces: if D is a power of two, rows of weights, ring and sums
// would otherwise map to the same few cache sets as the rows of x.
constexpr int64_t stride_of(int64_t D) { return D + 16; }

// Calls f(count), with the authors' width as a constant, so that the loop over taps is unrolled and
// each input is loaded once.
template <class F>
void with_count(int64_t count, F&& f) {
  if (count == kGroup) {
    f(std::integral_constant<int64_t, kGroup>{});
  } else {
    f(count);
  }
}

// What the taps of a token read: x, history, or nothing.
template <class T>
struct Inputs {
  const T *x, *history;
  const int32_t* starts;
  ShortConvDims dims;

  // Earliest position (negative: history) that token t of sequence b may read.
  int64_t first_visible(int64_t b, int64_t t) const {
    const int64_t start = starts == nullptr ? 0 : starts[b * dims.T + t];
    return start == 0 && history != nullptr ? 1 - dims.width : start;
  }
  // Whether tokens t ... t + count - 1 belong to the same sequence and read only x, width inputs
  // each.
  bool inside(int64_t b, int64_t t, int64_t count) const {
    if (dims.width != kGroup || t < dims.width - 1 || t + count > dims.T) return false;
    for (int64_t later = t; later < t + count; ++later)
      if (first_visible(b, later) > t - (dims.width - 1)) return false;
    return true;
  }
  const T* row(int64_t b, int64_t t) const {
    return t >= 0 ? x + (b * dims.T + t) * dims.D
                  : history + (b * (dims.width - 1) + dims.width - 1 + t) * dims.D;
  }
};

// The visible taps of one token: rows[i - first] belongs to weight i, i in [first, width).
template <class T>
struct Taps {
  std::array<const T*, kMaxWidth> rows;
  int64_t first, count;

  Taps(const Inputs<T>& in, int64_t b, int64_t t) {
    const int64_t width = in.dims.width, oldest = t - (width - 1);
    first = std::max<int64_t>(0, in.first_visible(b, t) - oldest);
    count = width - first;
    for (int64_t i = 0; i < count; ++i) rows[i] = in.row(b, oldest + first + i);
  }

  // Pre-activation of channels d ... ; weight is (width, D).
  template <class Count, class Lanes>
  Vec dot(Count n, const float* weight, const float* bias, int64_t D, int64_t d,
          Lanes lanes) const {
    Vec z = simd::load(bias + d, lanes);
    for (int64_t i = 0; i < n; ++i)
      z = simd::multiply_add(simd::load(weight + (first + i) * stride_of(D) + d, lanes),
                             simd::load(rows[i] + d, lanes), z);
    return z;
  }
};

// The vectors of a group: weights and bias of kLanes channels, inputs of kGroup tokens and of the
// kGroup - 1 before them. The sums use the same order as Taps::dot, so grouping changes no bits.
template <class T, class Lanes>
struct Group {
  Vec weight[kGroup], bias, x[2 * kGroup - 1];

  // first: channel d of the earliest input.
  Group(const float* weights, const float* biases, const T* first, int64_t D, int64_t d,
        Lanes lanes)
      : bias(simd::load(biases + d, lanes)) {
    for (int64_t i = 0; i < kGroup; ++i)
      weight[i] = simd::load(weights + i * stride_of(D) + d, lanes);
    for (int64_t i = 0; i < 2 * kGroup - 1; ++i) x[i] = simd::load(first + i * D, lanes);
  }
  Vec pre_activation(int64_t token) const {
    Vec z = bias;
    for (int64_t i = 0; i < kGroup; ++i) z = simd::multiply_add(weight[i], x[token + i], z);
    return z;
  }
};

memory::Scratch<float> transposed(const float* weight, const ShortConvDims& dims) {
  const int64_t stride = stride_of(dims.D);
  memory::Scratch<float> t(dims.width * stride);
  for (int64_t d = 0; d < dims.D; ++d)
    for (int64_t i = 0; i < dims.width; ++i) t[i * stride + d] = weight[d * dims.width + i];
  return t;
}

// Outputs of kGroup tokens; x is the earliest input.
template <class T>
void forward_group(T* y, const T* x, const float* weight, const float* bias, int64_t D) {
  simd::for_lanes(D, [=](int64_t d, auto lanes) {
    const Group<T, decltype(lanes)> group(weight, bias, x + d, D, d, lanes);
#pragma GCC unroll 4
    for (int64_t token = 0; token < kGroup; ++token)
      simd::store(y + token * D + d, simd::silu(group.pre_activation(token)), lanes);
  });
}

void check_dims(const ShortConvDims& dims) {
  CHECK(dims.width >= 1 && dims.width <= kMaxWidth, "short_conv: width = ", dims.width,
        ", need 1 to ", kMaxWidth);
}

// Sequence b, rows [begin, end): dx (and dhistory when begin is 0), partial sums of dweight
// (width, D) and dbias. ring holds dz of the last `width` rows.
template <class T>
struct BackwardBlock {
  Inputs<T> in;
  T *dx, *dhistory;
  const T* dy;
  const float *weight, *bias;
  float *ring, *dweight, *dbias;

  void run(int64_t b, int64_t begin, int64_t end) const {
    const int64_t width = in.dims.width;
    const int64_t last = std::min(in.dims.T, end + width - 1) - 1;
    const int64_t first = begin == 0 && dhistory != nullptr ? 1 - width : begin;
    int64_t t = last;
    while (t >= first) {
      // The group and the later tokens whose gradients reach its inputs.
      const int64_t group = t - (kGroup - 1);
      if (t < end && group >= begin && in.inside(b, group, 2 * kGroup - 1)) {
        gradients_of_group(b, group);
        t -= kGroup;
        continue;
      }
      if (t >= 0) pre_activation_gradient(b, t, t < end);
      if (t < end) input_gradient(b, t);
      --t;
    }
  }

 private:
  float* ring_row(int64_t t) const { return ring + t % in.dims.width * stride_of(in.dims.D); }

  void pre_activation_gradient(int64_t b, int64_t t, bool own) const {
    const int64_t D = in.dims.D;
    const Taps<T> taps(in, b, t);
    const T* dy_row = dy + (b * in.dims.T + t) * D;
    float* dz_row = ring_row(t);
    with_count(taps.count, [&](auto count) {
      simd::for_lanes(D, [&](int64_t d, auto lanes) {
        const Vec z = taps.dot(count, weight, bias, D, d, lanes);
        const Vec dz = simd::load(dy_row + d, lanes) * simd::silu_slope(z, simd::sigmoid(z));
        simd::store(dz_row + d, dz, lanes);
        if (!own) return;  // this row's sums belong to the next block
        simd::store(dbias + d, simd::load(dbias + d, lanes) + dz, lanes);
        for (int64_t i = 0; i < count; ++i) {
          float* sum = dweight + (taps.first + i) * stride_of(D) + d;
          const Vec x = simd::load(taps.rows[static_cast<size_t>(i)] + d, lanes);
          simd::store(sum, simd::load(sum, lanes) + dz * x, lanes);
        }
      });
    });
  }

  // Both steps below for the tokens t ... t + kGroup - 1.
  void gradients_of_group(int64_t b, int64_t t) const {
    const int64_t D = in.dims.D, stride = stride_of(D);
    const T *x = in.row(b, t - (kGroup - 1)), *dy_rows = dy + (b * in.dims.T + t) * D;
    T* dx_rows = dx + (b * in.dims.T + t) * D;
    // Rows of the ring: read for later tokens, then overwritten by this group's own.
    std::array<float*, kGroup - 1> ring_rows;
    for (int64_t i = 0; i < kGroup - 1; ++i) ring_rows[i] = ring_row(t + i);
    const float *weights = weight, *biases = bias;
    float *weight_sums = dweight, *bias_sum = dbias;
    // Three short loops over a strip of channels, with dz between them in L1: there are not enough
    // registers for all these vectors and the constants of an exponential.
    std::array<float, kGroup * kStrip> workspace;
    float* const gradients = workspace.data();
    for (int64_t first = 0; first < D; first += kStrip) {
      const int64_t n = std::min(kStrip, D - first);
      simd::for_lanes(n, [=](int64_t i, auto lanes) {
        const int64_t d = first + i;
        const Group<T, decltype(lanes)> group(weights, biases, x + d, D, d, lanes);
#pragma GCC unroll 4
        for (int64_t token = 0; token < kGroup; ++token) {
          const Vec z = group.pre_activation(token);
          const Vec slope = simd::silu_slope(z, simd::sigmoid(z));
          const Vec dz = simd::load(dy_rows + token * D + d, lanes) * slope;
          simd::store(gradients + token * kStrip + i, dz, lanes);
        }
      });
      simd::for_lanes(n, [=](int64_t i, auto lanes) {
        const int64_t d = first + i;
        Vec dz[2 * kGroup - 1], w[kGroup];
        for (int64_t j = 0; j < kGroup; ++j) {
          dz[j] = simd::load(gradients + j * kStrip + i, lanes);
          w[j] = simd::load(weights + j * stride + d, lanes);
        }
        for (int64_t j = 0; j < kGroup - 1; ++j)
          dz[kGroup + j] = simd::load(ring_rows[j] + d, lanes);
        for (int64_t j = 0; j < kGroup - 1; ++j) simd::store(ring_rows[j] + d, dz[j], lanes);
#pragma GCC unroll 4
        for (int64_t token = 0; token < kGroup; ++token) {
          Vec sum{};
          for (int64_t j = 0; j < kGroup; ++j) sum += w[kGroup - 1 - j] * dz[token + j];
          simd::store(dx_rows + token * D + d, sum, lanes);
        }
      });
      simd::for_lanes(n, [=](int64_t i, auto lanes) {
        const int64_t d = first + i;
        Vec inputs[2 * kGroup - 1], sums[kGroup], dbias_sum = simd::load(bias_sum + d, lanes);
        for (int64_t j = 0; j < kGroup; ++j)
          sums[j] = simd::load(weight_sums + j * stride + d, lanes);
        for (int64_t j = 0; j < 2 * kGroup - 1; ++j) inputs[j] = simd::load(x + j * D + d, lanes);
#pragma GCC unroll 4
        for (int64_t token = kGroup - 1; token >= 0; --token) {
          const Vec dz = simd::load(gradients + token * kStrip + i, lanes);
          dbias_sum += dz;
          for (int64_t j = 0; j < kGroup; ++j) sums[j] += dz * inputs[token + j];
        }
        simd::store(bias_sum + d, dbias_sum, lanes);
        for (int64_t j = 0; j < kGroup; ++j)
          simd::store(weight_sums + j * stride + d, sums[j], lanes);
      });
    }
  }

  // Tokens later ... t + width - 1 read position t, with weight width - 1 - (token - t).
  void input_gradient(int64_t b, int64_t t) const {
    const int64_t D = in.dims.D, width = in.dims.width;
    std::array<const float*, kMaxWidth> dz, weights;
    int64_t count = 0;
    for (int64_t later = std::max<int64_t>(t, 0); later < std::min(in.dims.T, t + width); ++later) {
      if (in.first_visible(b, later) > t) continue;
      dz[count] = ring_row(later);
      weights[count++] = weight + (width - 1 - (later - t)) * stride_of(D);
    }
    T* out =
        t >= 0 ? dx + (b * in.dims.T + t) * D : dhistory + (b * (width - 1) + width - 1 + t) * D;
    with_count(count, [&](auto terms) {
      simd::for_lanes(D, [&](int64_t d, auto lanes) {
        Vec sum{};
        for (int64_t i = 0; i < terms; ++i)
          sum += simd::load(weights[i] + d, lanes) * simd::load(dz[i] + d, lanes);
        simd::store(out + d, sum, lanes);
      });
    });
  }
};

}  // namespace

template <class T>
void short_conv_forward(Cpu& exec, const ShortConvForwardArgs<T>& args) {
  const ShortConvDims& dims = args.dims;
  check_dims(dims);
  const Inputs<T> in{args.x, args.history, args.starts, dims};
  const int64_t D = dims.D;
  const memory::Scratch<float> by_tap = transposed(args.weight, dims);
  parallel_rows(exec, dims.B * dims.T, D, [&](int64_t begin, int64_t end) {
    int64_t r = begin;
    while (r < end) {
      const int64_t b = r / dims.T, t = r % dims.T;
      if (r + kGroup <= end && in.inside(b, t, kGroup)) {
        forward_group(args.y + r * D, in.row(b, t - (kGroup - 1)), by_tap.data(), args.bias, D);
        r += kGroup;
        continue;
      }
      const Taps<T> taps(in, b, t);
      with_count(taps.count, [&](auto count) {
        simd::for_lanes(D, [&](int64_t d, auto lanes) {
          const Vec z = taps.dot(count, by_tap.data(), args.bias, D, d, lanes);
          simd::store(args.y + r * D + d, simd::silu(z), lanes);
        });
      });
      ++r;
    }
  });
}

template <class T>
void short_conv_backward(Cpu& exec, const ShortConvBackwardArgs<T>& args) {
  const ShortConvDims& dims = args.dims;
  check_dims(dims);
  const int64_t D = dims.D, width = dims.width, stride = stride_of(D);
  const memory::Scratch<float> by_tap = transposed(args.weight, dims), dby_tap(width * stride);
  const PerThread<float> rings(exec, width * stride);
  std::fill_n(dby_tap.data(), width * stride, 0.0f);
  const auto rows_of_block = [&](int64_t begin, int64_t end, float* partial) {
    const BackwardBlock<T> block{.in = {args.x, args.history, args.starts, dims},
                                 .dx = args.dx,
                                 .dhistory = args.dhistory,
                                 .dy = args.dy,
                                 .weight = by_tap.data(),
                                 .bias = args.bias,
                                 .ring = rings.mine(),
                                 .dweight = partial,
                                 .dbias = partial + width * stride};
    while (begin < end) {  // a block of rows may cross sequences
      const int64_t b = begin / dims.T, stop = std::min(end, (b + 1) * dims.T);
      block.run(b, begin - b * dims.T, stop - b * dims.T);
      begin = stop;
    }
  };
  sum_over_rows(exec, dims.B * dims.T, {{dby_tap.data(), width * stride}, {args.dbias, D}},
                rows_of_block);
  for (int64_t d = 0; d < D; ++d)
    for (int64_t i = 0; i < width; ++i) args.dweight[d * width + i] += dby_tap[i * stride + d];
}

ScratchBytes short_conv_scratch(const Cpu& exec, Direction direction, ShortConvDims dims) {
  const int64_t taps = dims.width * stride_of(dims.D), bytes = taps * int64_t{sizeof(float)};
  if (direction == Direction::forward) return {bytes};
  return {bytes, bytes, PerThread<float>::bytes(exec, taps),
          RowBlocks(dims.B * dims.T, taps + dims.D).bytes()};
}

#define INSTANTIATE(T)                                                    \
  template void short_conv_forward(Cpu&, const ShortConvForwardArgs<T>&); \
  template void short_conv_backward(Cpu&, const ShortConvBackwardArgs<T>&);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
