// Tempered selection: a row for a group of lanes, up to a warp, so the norm of a key takes shuffles
// alone. What the second pass over a row needs waits in shared memory, and so do the sums of dbias;
// each lane reads back only what it wrote. Memory: every array is read or written once. Packs of 4
// in bf16 as well: a pack of 8 would take half a sector of the f32 decays at a time.
#include "kernels/ddts_gates.h"

#include <algorithm>

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
constexpr int kThreads = 256;

// sel = softplus(x), tau = sigmoid(z), power = sel^tau and what their gradients need.
struct Gates {
  float sel, log_sel;
  float dsel;      // d sel / dx = sigmoid(x)
  float dlog_sel;  // d log(sel) / dx = sigmoid(x) / sel
  SigmoidPair tau;
  float power;

  __device__ Gates(float x, float z) : tau(sigmoid_pair(z)) {
    const float e = expf(-fabsf(x)), large = 1.0f / (1.0f + e);
    sel = fmaxf(0.0f, x) + log1pf(e);
    dsel = x < 0.0f ? e * large : large;
    // Far to the left sel underflows and the ratio is 0 / 0, so the series in e = e^x takes over
    // (next term e^2, below 1e-8): log sel = x - e / 2, ratio = 1 - e / 2. The floor keeps
    // tau * log sel from being 0 * -inf; it lets NaN through.
    const bool left = x < -10.0f;
    log_sel = left ? x - 0.5f * e : logf(sel);
    if (log_sel < -1e30f) log_sel = -1e30f;
    dlog_sel = left ? 1.0f - 0.5f * e : dsel / sel;
    power = expf(tau.value * log_sel);
  }
};

// The pre-activations of one pack of both gates.
template <int N, class T>
struct GatePacks {
  Pack<N> x, z;

  __device__ GatePacks(const T* gates, const float* bias, int64_t i, int64_t m)
      : x(load<N>(gates + i)), z(load<N>(gates + m + i)) {
    if (bias == nullptr) return;
    const Pack<N> for_x = load<N>(bias + i), for_z = load<N>(bias + m + i);
#pragma unroll
    for (int l = 0; l < N; ++l) {
      x.v[l] += for_x.v[l];
      z.v[l] += for_z.v[l];
    }
  }
};

// The `lanes` neighbouring lanes (a power of two) that share a row. Groups of a warp may be at
// different rows, so a sum waits for the lanes of its own group alone.
struct Group {
  int lanes, lane, index, count;  // index: of the group in the block, of `count`
  unsigned mask;

  __device__ explicit Group(int lanes_)
      : lanes(lanes_),
        lane(threadIdx.x % lanes_),
        index(threadIdx.x / lanes_),
        count(blockDim.x / lanes_),
        mask((0xffffffffu >> (kWarp - lanes_)) << (threadIdx.x % kWarp / lanes_ * lanes_)) {}

  // On every lane the same bits.
  __device__ float sum(float value) const {
    for (int offset = lanes / 2; offset > 0; offset /= 2)
      value += __shfl_xor_sync(mask, value, offset);
    return value;
  }
};

// 1 / max(sqrt(squares), eps), and whether the floor eps decided. NaN is no short key.
struct InverseNorm {
  bool clamped;
  float value;

  __device__ InverseNorm(float squares, float eps) {
    const float norm = sqrtf(squares);
    clamped = norm < eps;
    value = 1.0f / (clamped ? eps : norm);
  }
};

// A key goes to shared memory on its way to its norm.
template <int N, class T>
__device__ __forceinline__ float keep_key(float* key, const T* k_in, int64_t m,
                                          const Group& group) {
  float squares = 0;
  for (int64_t i = group.lane * N; i < m; i += group.lanes * N) {
    const Pack<N> value = load<N>(k_in + i);
#pragma unroll
    for (int l = 0; l < N; ++l) squares += value.v[l] * value.v[l];
    store(key + i, value);
  }
  return group.sum(squares);
}

template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(T* q, T* k, float* g, const T* qk, const T* gates, const float* bias,
                   DdtsGatesDims dims, int lanes) {
  DYN_SHARED(memory);
  const Group group(lanes);
  const int64_t m = dims.m, r = int64_t{blockIdx.x} * group.count + group.index;
  if (r >= dims.rows) return;
  float* const key = reinterpret_cast<float*>(memory) + group.index * m;
  const T* const q_in = qk + 2 * m * r;
  const InverseNorm inverse(keep_key<N>(key, q_in + m, m, group), dims.key_norm_eps);
  for (int64_t i = group.lane * N; i < m; i += lanes * N) {
    const GatePacks<N, T> gate(gates + 2 * m * r, bias, i, m);
    Pack<N> value = load<N>(key + i), decay;
#pragma unroll
    for (int l = 0; l < N; ++l) {
      const Gates one(gate.x.v[l], gate.z.v[l]);
      value.v[l] = value.v[l] * inverse.value * one.power;
      decay.v[l] = -one.sel * one.tau.value;
    }
    store(q + r * m + i, load<N>(q_in + i));
    store(k + r * m + i, value);
    store(g + r * m + i, decay);
  }
}

// out += value, in a lane's own place.
template <int N>
__device__ __forceinline__ void add(float* out, const Pack<N>& value) {
  Pack<N> sum = load<N>(out);
#pragma unroll
  for (int l = 0; l < N; ++l) sum.v[l] += value.v[l];
  store(out, sum);
}

// With n = k / max(|k|, eps) and p = sel^tau:  dn = dk p,  dp = dk n;  where |k| > eps the part of
// dn along n is removed, because the norm does not depend on it.
template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(T* dqk, T* dgates, float* lines, const T* dq, const T* dk, const float* dg,
                    const T* qk, const T* gates, const float* bias, DdtsGatesDims dims, int lanes) {
  DYN_SHARED(memory);
  const Group group(lanes);
  const int64_t m = dims.m, first = group.lane * N, step = lanes * N;
  float* const sums = reinterpret_cast<float*>(memory);  // (groups, 2m), then key, dn (groups, m)
  float* const dbias = sums + group.index * 2 * m;
  float* const key = sums + (2 * group.count + group.index) * m;
  float* const dn = key + group.count * m;
  const Pack<N> zero{};
  for (int64_t i = first; i < m; i += step) {
    store(dbias + i, zero);
    store(dbias + m + i, zero);
  }
  const int64_t end = dims.rows * (blockIdx.x + 1) / gridDim.x;
  for (int64_t r = dims.rows * blockIdx.x / gridDim.x + group.index; r < end; r += group.count) {
    const int64_t at = r * m;
    const InverseNorm inverse(keep_key<N>(key, qk + 2 * at + m, m, group), dims.key_norm_eps);
    float along = 0;
    for (int64_t i = first; i < m; i += step) {
      const GatePacks<N, T> gate(gates + 2 * at, bias, i, m);
      const Pack<N> value = load<N>(key + i), decay = load<N>(dg + at + i);
      Pack<N> d = load<N>(dk + at + i), dx, dz;
#pragma unroll
      for (int l = 0; l < N; ++l) {
        const Gates one(gate.x.v[l], gate.z.v[l]);
        d.v[l] *= one.power;
        const float dlog = d.v[l] * (value.v[l] * inverse.value);  // d loss / d log p
        along += dlog;
        dx.v[l] = one.tau.value * (dlog * one.dlog_sel - decay.v[l] * one.dsel);
        const float dtau = dlog * one.log_sel - decay.v[l] * one.sel;
        dz.v[l] = dtau * (one.tau.value * one.tau.complement);
      }
      store(dn + i, d);
      store(dqk + 2 * at + i, load<N>(dq + at + i));
      store(dgates + 2 * at + i, dx);
      store(dgates + 2 * at + m + i, dz);
      add(dbias + i, dx);
      add(dbias + m + i, dz);
    }
    along = group.sum(along);
    const float projection = inverse.clamped ? 0.0f : along;
    for (int64_t i = first; i < m; i += step) {
      const Pack<N> value = load<N>(key + i);
      Pack<N> d = load<N>(dn + i);
#pragma unroll
      for (int l = 0; l < N; ++l)
        d.v[l] = (d.v[l] - value.v[l] * inverse.value * projection) * inverse.value;
      store(dqk + 2 * at + m + i, d);
    }
  }
  if (lines == nullptr) return;
  __syncthreads();  // sums complete
  for (int64_t j = threadIdx.x; j < 2 * m; j += blockDim.x) {
    float sum = 0;
    for (int i = 0; i < group.count; ++i) sum += sums[i * 2 * m + j];
    lines[blockIdx.x * 2 * m + j] = sum;
  }
}

// Lanes for rows of `packs` packs: a power of two, up to a warp.
int lanes_for(int64_t packs) {
  int lanes = 1;
  while (lanes < kWarp && lanes < packs) lanes *= 2;
  return lanes;
}

}  // namespace

template <class T>
void ddts_gates_forward(Cuda& gpu, const DdtsGatesForwardArgs<T>& args) {
  const DdtsGatesDims& dims = args.dims;
  if (dims.rows == 0) return;
  const bool packs =
      packs_fit<kPack>(dims.m, args.q, args.k, args.g, args.qk, args.gates, args.bias);
  const int lanes = lanes_for(packs ? dims.m / kPack : dims.m), groups = kThreads / lanes;
  CUDA_CHECK(dev::launch(narrow<unsigned>((dims.rows + groups - 1) / groups), kThreads,
                         row_bytes(gpu, "ddts_gates", groups * sizeof(float), dims.m), gpu.stream,
                         packs ? forward_kernel<kPack, T> : forward_kernel<1, T>, args.q, args.k,
                         args.g, args.qk, args.gates, args.bias, dims, lanes));
}

template <class T>
void ddts_gates_backward(Cuda& gpu, const DdtsGatesBackwardArgs<T>& args) {
  const DdtsGatesDims& dims = args.dims;
  if (dims.rows == 0) return;
  const bool packs = packs_fit<kPack>(dims.m, args.dqk, args.dgates, args.dq, args.dk, args.dg,
                                      args.qk, args.gates, args.bias);
  const int lanes = lanes_for(packs ? dims.m / kPack : dims.m), groups = kThreads / lanes;
  const int64_t blocks = row_blocks(dims.rows / groups), width = 2 * dims.m;
  const memory::Scratch<float> lines(args.dbias == nullptr ? 0 : blocks * width, Device::cuda);
  CUDA_CHECK(dev::launch(narrow<unsigned>(blocks), kThreads,
                         row_bytes(gpu, "ddts_gates_backward", 4 * groups * sizeof(float), dims.m),
                         gpu.stream, packs ? backward_kernel<kPack, T> : backward_kernel<1, T>,
                         args.dqk, args.dgates, args.dbias == nullptr ? nullptr : lines.data(),
                         args.dq, args.dk, args.dg, args.qk, args.gates, args.bias, dims, lanes));
  if (args.dbias != nullptr) add_lines(gpu, args.dbias, lines.data(), blocks, width, width);
}

#define INSTANTIATE(T)                                                     \
  template void ddts_gates_forward(Cuda&, const DdtsGatesForwardArgs<T>&); \
  template void ddts_gates_backward(Cuda&, const DdtsGatesBackwardArgs<T>&);
INSTANTIATE(float)
INSTANTIATE(bf16)
#undef INSTANTIATE

}  // namespace rodimus
