// Whole-array reductions: one block of threads per kReduceBlock elements; the host adds the block
// results in ascending order, as on the CPU.
#include "kernels/reduce.h"

#include <vector>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/memory.h"

namespace rodimus {
namespace {

using namespace cuda;

constexpr int kThreads = 256;

// Squares and sums in double: an f32 square overflows at 1.8e19. A block of threads takes its
// blocks[i], or where that is null the i-th kReduceBlock elements of n.
template <int N, bool kSquare>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(double* sums, const float* x, int64_t n, const ArrayPart* blocks) {
  SHARED_ARRAY(double, partial, kMaxWarps);
  int64_t begin = int64_t{blockIdx.x} * kReduceBlock;
  int64_t end = begin + kReduceBlock < n ? begin + kReduceBlock : n;
  if (blocks != nullptr) {
    begin = blocks[blockIdx.x].begin;
    end = begin + blocks[blockIdx.x].size;
  }
  double sum = 0;
  const auto add = [&](float value) {
    const double wide = value;
    sum += kSquare ? wide * wide : wide;
  };
  for (int64_t i = begin + threadIdx.x * N; i < end; i += kThreads * N) {
    if (i + N <= end) {
      const Pack<N> pack = load<N>(x + i);
      for (int l = 0; l < N; ++l) add(pack.v[l]);
    } else {
      for (int64_t j = i; j < end; ++j) add(x[j]);
    }
  }
  sum = block_sum(sum, partial);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// fnv() of kernels/cpu/reduce.cpp: the hashes must agree.
constexpr uint64_t kFnvOffset = 0xcbf29ce484222325u, kFnvPrime = 0x100000001b3u;
__host__ __device__ inline uint64_t fnv(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * kFnvPrime;
  return hash ^ (hash >> 32);
}

// A chain of steps that cannot be cut: a warp per block of bytes brings words into shared memory,
// many loads at once, and its first lane goes through them. `words` counts whole words, `tail`
// bytes follow.
__global__ void __launch_bounds__(kWarp)
    hash_kernel(uint64_t* hashes, const uint64_t* data, int64_t words, int tail) {
  constexpr int kStage = 8 * kWarp;
  constexpr int64_t kWords = kReduceBlock / 2;
  SHARED_ARRAY(uint64_t, stage, kStage);
  const int64_t begin = int64_t{blockIdx.x} * kWords;
  const int64_t end = begin + kWords < words ? begin + kWords : words;
  uint64_t hash = kFnvOffset;
  for (int64_t first = begin; first < end; first += kStage) {
    const int count = end - first < kStage ? static_cast<int>(end - first) : kStage;
#pragma unroll
    for (int i = 0; i < kStage; i += kWarp) {
      const int mine = i + static_cast<int>(threadIdx.x);
      if (mine < count) stage[mine] = data[first + mine];
    }
    __syncwarp();  // stage complete
    if (threadIdx.x == 0)
      for (int i = 0; i < count; ++i) hash = fnv(hash, stage[i]);
    __syncwarp();  // stage may be written again
  }
  if (threadIdx.x != 0) return;
  if (tail > 0 && blockIdx.x == gridDim.x - 1) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(data + words);
    uint64_t word = 0;  // padded with zeros
    for (int i = 0; i < tail; ++i) word |= uint64_t{bytes[i]} << (8 * i);
    hash = fnv(hash, word);
  }
  hashes[blockIdx.x] = hash;
}

template <class R>
std::vector<R> to_host(Cuda& gpu, const memory::Scratch<R>& results, int64_t count) {
  std::vector<R> host(static_cast<size_t>(count));
  memory::download(gpu, host.data(), results.data(), count * static_cast<int64_t>(sizeof(R)));
  return host;
}

template <bool kSquare>
double reduce(Cuda& gpu, const float* x, int64_t n, int64_t count, const ArrayPart* blocks) {
  if (count == 0) return 0;
  const memory::Scratch<double> sums(count, Device::cuda);
  CUDA_CHECK(dev::launch(narrow<unsigned>(count), kThreads, 0, gpu.stream,
                         packs_fit<4>(0, x) ? sum_kernel<4, kSquare> : sum_kernel<1, kSquare>,
                         sums.data(), x, n, blocks));
  double total = 0;
  for (const double sum : to_host(gpu, sums, count)) total += sum;
  return total;
}

template <bool kSquare>
double reduce(Cuda& gpu, const float* x, int64_t n) {
  return reduce<kSquare>(gpu, x, n, (n + kReduceBlock - 1) / kReduceBlock, nullptr);
}

}  // namespace

double sum_of_squares(Cuda& gpu, const float* x, int64_t n) { return reduce<true>(gpu, x, n); }

double sum_of_squares(Cuda& gpu, const float* x, std::span<const ArrayPart> parts) {
  const std::vector<ArrayPart> blocks = blocks_of(parts);
  const auto count = static_cast<int64_t>(blocks.size());
  if (count == 0) return 0;
  const memory::Scratch<ArrayPart> list(count, Device::cuda);
  memory::upload(gpu, list.data(), blocks.data(), count * static_cast<int64_t>(sizeof(ArrayPart)));
  return reduce<true>(gpu, x, 0, count, list.data());
}

double sum(Cuda& gpu, const float* x, int64_t n) { return reduce<false>(gpu, x, n); }

uint64_t hash_bytes(Cuda& gpu, const void* data, int64_t bytes) {
  CHECK(reinterpret_cast<uintptr_t>(data) % 8 == 0,
        "hash_bytes: the address must be a multiple of 8");
  const int64_t block = kReduceBlock * static_cast<int64_t>(sizeof(float));
  const int64_t blocks = (bytes + block - 1) / block;
  uint64_t hash = fnv(kFnvOffset, static_cast<uint64_t>(bytes));  // tells padding from data
  if (blocks == 0) return hash;
  const memory::Scratch<uint64_t> hashes(blocks, Device::cuda);
  CUDA_CHECK(dev::launch(narrow<unsigned>(blocks), kWarp, 0, gpu.stream, hash_kernel, hashes.data(),
                         static_cast<const uint64_t*>(data), bytes / 8,
                         static_cast<int>(bytes % 8)));
  for (const uint64_t part : to_host(gpu, hashes, blocks)) hash = fnv(hash, part);
  return hash;
}

}  // namespace rodimus
