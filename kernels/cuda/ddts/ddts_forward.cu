// DDTS forward on the GPU: a small kernel per (sequence, chunk) for what all value columns share
// (ddts_chunk.cuh), then one kernel per (sequence, block of value columns) that walks through the
// chunks with its slice of the state in registers (ddts_walk.cuh). One token: the recurrence as it
// is written.
#include "kernels/cuda/ddts/ddts_walk.cuh"
#include "kernels/memory.h"

namespace rodimus {
namespace {

using namespace cuda;
using namespace cuda::ddts;

constexpr int kTokenThreads = 64;

// Thread = value column; blocks (V / kTokenThreads, B).
template <class T>
__global__ void __launch_bounds__(kTokenThreads)
    ddts_token_kernel(T* o, float* state_out, const T* q, const T* k, const T* v, const float* g,
                      const float* state_in, int K, int V) {
  SHARED_ARRAY(float, queries, kMaxKeys);
  SHARED_ARRAY(float, keys, kMaxKeys);
  SHARED_ARRAY(float, decays, kMaxKeys);
  const int b = blockIdx.y, column = blockIdx.x * kTokenThreads + threadIdx.x;
  const float scale = 1.0f / sqrtf(static_cast<float>(K));
  for (int c = threadIdx.x; c < K; c += kTokenThreads) {
    const int64_t at = static_cast<int64_t>(b) * K + c;
    queries[c] = dev::to_float(q[at]) * scale;
    keys[c] = dev::to_float(k[at]);
    decays[c] = expf(g[at]);
  }
  __syncthreads();  // queries, keys, decays are whole
  if (column >= V) return;
  const int64_t row = static_cast<int64_t>(b) * V + column;
  const float value = dev::to_float(v[row]);
  float sum = 0.0f;
#pragma unroll 4
  for (int c = 0; c < K; ++c) {
    const int64_t at = (static_cast<int64_t>(b) * K + c) * V + column;
    float s = keys[c] * value;
    if (state_in != nullptr) s += decays[c] * state_in[at];
    if (state_out != nullptr) state_out[at] = s;
    sum += queries[c] * s;
  }
  o[row] = dev::from_float<T>(sum);
}

}  // namespace

template <class T>
void ddts_forward(Cuda& gpu, const DdtsForwardArgs<T>& args) {
  const DdtsDims& dims = args.dims;
  check_dims(dims);
  const int K = static_cast<int>(dims.K), V = static_cast<int>(dims.V);
  if (dims.T == 1) {
    const dim3 grid((V + kTokenThreads - 1) / kTokenThreads, static_cast<unsigned>(dims.B));
    CUDA_CHECK(dev::launch(grid, dim3(kTokenThreads), 0, gpu.stream, ddts_token_kernel<T>, args.o,
                           args.state_out, args.q, args.k, args.v, args.g, args.state_in, K, V));
    return;
  }
  const Tiling tiling(dims);
  const int length = static_cast<int>(dims.T);
  const memory::Scratch<T> records(dims.B * tiling.chunks * Record<T>{tiling.slices}.size(),
                                   Device::cuda);
  launch_records<T>(gpu, records.data(),
                    {args.q, args.k, args.g, args.starts, length, K, tiling.chunks}, dims);
  Walk<T> walk{};
  walk.records = records.data();
  walk.in = args.v;
  walk.out = args.o;
  walk.state_in = args.state_in;
  walk.state_out = args.state_out;
  walk.length = length;
  walk.K = K;
  walk.V = V;
  walk.chunks = walk.steps = tiling.chunks;
  walk.pairs = tiling.pairs;
  walk.vectors =
      aligned(args.v, dims.V * int64_t{sizeof(T)}) && aligned(args.o, dims.V * int64_t{sizeof(T)});
  launch_walk<Walks::forward>(gpu, walk, dims);
}

template void ddts_forward(Cuda&, const DdtsForwardArgs<float>&);
template void ddts_forward(Cuda&, const DdtsForwardArgs<bf16>&);

}  // namespace rodimus
