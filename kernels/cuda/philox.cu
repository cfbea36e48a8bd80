// Philox-4x32-10 and the two distributions, a thread per block of four numbers. Runs once, at
// initialisation: plain double arithmetic, like the CPU's.
#include "kernels/philox.h"

#include <cmath>

#include "kernels/cuda/dev.cuh"
#include "kernels/cuda/runtime.h"

namespace rodimus {
namespace {

using namespace cuda;

constexpr int kThreads = 128;

struct Words {
  uint32_t v[4];
};

__device__ Words block_of(uint64_t seed, uint64_t stream, uint64_t index) {
  Words c{{static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
           static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)}};
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * c.v[0], b = uint64_t{0xCD9E8D57} * c.v[2];
    c = {{static_cast<uint32_t>(b >> 32) ^ c.v[1] ^ key0, static_cast<uint32_t>(b),
          static_cast<uint32_t>(a >> 32) ^ c.v[3] ^ key1, static_cast<uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

__device__ void store_block(float* x, int64_t n, int64_t block, const float (&values)[4]) {
  for (int i = 0; i < 4; ++i)
    if (4 * block + i < n) x[4 * block + i] = values[i];
}

__global__ void __launch_bounds__(kThreads)
    uniform_kernel(float* x, int64_t n, double low, double width, float largest, uint64_t seed,
                   uint64_t stream) {
  const int64_t block = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (4 * block >= n) return;
  const Words words = block_of(seed, stream, static_cast<uint64_t>(block));
  float values[4];
  for (int i = 0; i < 4; ++i)
    values[i] = fminf(largest, static_cast<float>(low + width * (words.v[i] * 0x1p-32)));
  store_block(x, n, block, values);
}

__global__ void __launch_bounds__(kThreads)
    normal_kernel(float* x, int64_t n, double std, uint64_t seed, uint64_t stream) {
  const int64_t block = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (4 * block >= n) return;
  const Words words = block_of(seed, stream, static_cast<uint64_t>(block));
  float values[4];
  for (int i = 0; i < 4; i += 2) {
    // The half keeps the logarithm's argument off zero.
    const double radius = sqrt(-2 * log((words.v[i] + 0.5) * 0x1p-32));
    const double half_turns = 2 * (words.v[i + 1] * 0x1p-32);
    values[i] = static_cast<float>(std * radius * cospi(half_turns));
    values[i + 1] = static_cast<float>(std * radius * sinpi(half_turns));
  }
  store_block(x, n, block, values);
}

unsigned grid_for(int64_t n) { return narrow<unsigned>(((n + 3) / 4 + kThreads - 1) / kThreads); }

}  // namespace

void random_uniform(Cuda& gpu, float* x, int64_t n, float low, float high, uint64_t seed,
                    uint64_t stream) {
  if (n == 0) return;
  const double wide_low = static_cast<double>(low), width = static_cast<double>(high) - wide_low;
  // Rounding to f32 may reach `high`, which is outside.
  const float largest = high > low ? std::nextafter(high, low) : low;
  CUDA_CHECK(dev::launch(grid_for(n), kThreads, 0, gpu.stream, uniform_kernel, x, n, wide_low,
                         width, largest, seed, stream));
}

void random_normal(Cuda& gpu, float* x, int64_t n, float std, uint64_t seed, uint64_t stream) {
  if (n == 0) return;
  CUDA_CHECK(dev::launch(grid_for(n), kThreads, 0, gpu.stream, normal_kernel, x, n,
                         static_cast<double>(std), seed, stream));
}

}  // namespace rodimus
