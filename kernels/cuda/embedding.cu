// Embedding: a gather, and a scatter-add that orders its sums by two passes instead of atomics. The
// first splits the token positions by table row into ranges, in ascending order within each; the
// second gives every (range, 32 columns) to a warp, which walks the range's positions and keeps the
// sums of its table rows in shared memory. Memory: dy is read once, a table row is read and written
// once when a token names it; 8 bytes a token for the order.
#include "kernels/embedding.h"

#include <algorithm>
#include <bit>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/faults.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/memory.h"

namespace rodimus {
namespace {

using namespace cuda;

constexpr int kPack = 4;
constexpr int kMaxThreads = 256;

__device__ __forceinline__ bool is_token(int32_t id, int64_t vocab) {
  return id >= 0 && id < vocab;
}

template <int N>
__global__ void __launch_bounds__(kMaxThreads)
    forward_kernel(float* y, const float* table, const int32_t* ids, int64_t dim, int64_t vocab,
                   uint64_t* faults) {
  const int64_t row = blockIdx.x;
  const int32_t id = ids[row];
  const bool good = is_token(id, vocab);
  if (!good && threadIdx.x == 0) report(faults, Fault::token_id, row, id, vocab);
  for (int64_t i = threadIdx.x * N; i < dim; i += blockDim.x * N)
    store(y + row * dim + i, good ? load<N>(table + id * dim + i) : Pack<N>{});
}

// Table row `id` is member id / ranges of range id % ranges: the frequent tokens of a vocabulary
// have neighbouring ids, so that they come to different ranges. `ranges` is a power of two.
constexpr int kRange = 64;  // members at most
struct Entry {
  int64_t row;
  int member;
};
__device__ __forceinline__ int64_t packed(Entry e) { return e.row * kRange + e.member; }
__device__ __forceinline__ Entry unpacked(int64_t e) {
  return {e / kRange, static_cast<int>(e % kRange)};
}

constexpr int kOrderWarps = 8;

// Block b writes the entries of range b to order[borders[b]] and on. It counts what lies before
// them (entries of lower ranges) by itself: every block reads all ids, twice, each warp its part.
__global__ void __launch_bounds__(kOrderWarps* kWarp)
    order_kernel(int64_t* order, int64_t* borders, const int32_t* ids, int64_t rows, int64_t vocab,
                 int ranges, uint64_t* faults) {
  SHARED_ARRAY(int64_t, lower, kOrderWarps);
  SHARED_ARRAY(int64_t, mine, kOrderWarps);
  const int range = blockIdx.x, shift = 31 - __clz(ranges);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t begin = rows * warp / kOrderWarps, end = rows * (warp + 1) / kOrderWarps;
  int64_t lower_count = 0, my_count = 0;
  for (int64_t r = begin + lane; r < end; r += kWarp) {
    const int32_t id = ids[r];
    if (!is_token(id, vocab)) {
      if (range == 0) report(faults, Fault::token_id, r, id, vocab);
      continue;
    }
    const int of_id = id & (ranges - 1);
    lower_count += of_id < range;
    my_count += of_id == range;
  }
  lower_count = warp_sum(lower_count);
  my_count = warp_sum(my_count);
  if (lane == 0) {
    lower[warp] = lower_count;
    mine[warp] = my_count;
  }
  __syncthreads();  // counts complete
  int64_t at = 0, before = 0, all = 0;
  for (int w = 0; w < kOrderWarps; ++w) {
    at += lower[w];
    before += w < warp ? mine[w] : 0;
    all += mine[w];
  }
  if (threadIdx.x == 0) {
    borders[range] = at;
    if (range == ranges - 1) borders[ranges] = at + all;
  }
  at += before;
  for (int64_t first = begin; first < end; first += kWarp) {
    const int64_t r = first + lane;
    const int32_t id = r < end ? ids[r] : -1;
    const bool hit = is_token(id, vocab) && (id & (ranges - 1)) == range;
    const unsigned hits = __ballot_sync(0xffffffffu, hit);
    if (hit) order[at + __popc(hits & ((1u << lane) - 1))] = packed({r, id >> shift});
    at += __popc(hits);
  }
}

// A lane owns a column: what it reads of `sums` it wrote itself.
__global__ void __launch_bounds__(kWarp)
    backward_kernel(float* dtable, const float* dy, const int64_t* order, const int64_t* borders,
                    int64_t dim) {
  constexpr int kTogether = 8;  // rows of dy on their way at once
  SHARED_ARRAY(float, sums, kRange* kWarp);
  const int ranges = gridDim.x, range = blockIdx.x, lane = threadIdx.x;
  const int64_t column = int64_t{blockIdx.y} * kWarp + lane;
  const bool inside = column < dim;
  const int64_t end = borders[range + 1];
  uint64_t touched = 0;  // members whose sums are here
  const auto at = [&](int member) { return (int64_t{member} * ranges + range) * dim + column; };
  for (int64_t first = borders[range]; first < end; first += kWarp) {
    const int count = end - first < kWarp ? static_cast<int>(end - first) : kWarp;
    const int64_t entries = lane < count ? order[first + lane] : 0;
    for (int i = 0; i < count; i += kTogether) {
      float added[kTogether];
      int members[kTogether];
#pragma unroll
      for (int l = 0; l < kTogether; ++l) {
        const Entry entry = unpacked(__shfl_sync(0xffffffffu, entries, i + l));
        members[l] = entry.member;
        added[l] = i + l < count && inside ? dy[entry.row * dim + column] : 0.0f;
      }
#pragma unroll
      for (int l = 0; l < kTogether; ++l) {
        if (i + l >= count || !inside) break;
        float* const sum = &sums[members[l] * kWarp + lane];
        const uint64_t bit = uint64_t{1} << members[l];
        *sum = ((touched & bit) != 0 ? *sum : dtable[at(members[l])]) + added[l];
        touched |= bit;
      }
    }
  }
  for (int member = 0; touched != 0; ++member, touched >>= 1)
    if ((touched & 1) != 0) dtable[at(member)] = sums[member * kWarp + lane];
}

}  // namespace

void embedding_forward(Cuda& gpu, float* y, const float* table, const int32_t* ids, int64_t rows,
                       int64_t dim, int64_t vocab) {
  if (rows == 0 || dim == 0) return;
  const bool packs = packs_fit<kPack>(dim, y, table);
  CUDA_CHECK(dev::launch(
      narrow<unsigned>(rows), threads_for(packs ? dim / kPack : dim, kMaxThreads), 0, gpu.stream,
      packs ? forward_kernel<kPack> : forward_kernel<1>, y, table, ids, dim, vocab, gpu.faults));
}

void embedding_backward(Cuda& gpu, float* dtable, const float* dy, const int32_t* ids, int64_t rows,
                        int64_t dim, int64_t vocab) {
  if (rows == 0 || dim == 0) return;
  const auto least = static_cast<uint64_t>((vocab + kRange - 1) / kRange);
  const auto ranges = narrow<int>(std::bit_ceil(std::max<uint64_t>(least, 1)));
  const memory::Scratch<int64_t> order(rows, Device::cuda), borders(ranges + 1, Device::cuda);
  CUDA_CHECK(dev::launch(ranges, kOrderWarps * kWarp, 0, gpu.stream, order_kernel, order.data(),
                         borders.data(), ids, rows, vocab, ranges, gpu.faults));
  const dim3 grid(static_cast<unsigned>(ranges), narrow<unsigned>((dim + kWarp - 1) / kWarp));
  CUDA_CHECK(dev::launch(grid, kWarp, 0, gpu.stream, backward_kernel, dtable, dy, order.data(),
                         borders.data(), dim));
}

}  // namespace rodimus
