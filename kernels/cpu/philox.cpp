// Philox-4x32-10 and the two distributions. Runs once, at initialisation, so plain double
// arithmetic is fast enough.
#include "kernels/philox.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/cpu/parallel.h"

namespace rodimus {

using namespace cpu;
namespace {

std::array<uint32_t, 4> block_of(uint64_t seed, uint64_t stream, uint64_t index) {
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  return philox4x32({low(index), high(index), low(stream), high(stream)}, {low(seed), high(seed)});
}

// x[i] = f(words of block i / 4)[i % 4].
template <class F>
void for_blocks(const Cpu& exec, float* x, int64_t n, uint64_t seed, uint64_t stream, F&& f) {
  parallel_for(exec, (n + 3) / 4, kParallelGrain / 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const std::array<float, 4> values = f(block_of(seed, stream, static_cast<uint64_t>(b)));
      std::copy_n(values.begin(), std::min<int64_t>(4, n - 4 * b), x + 4 * b);
    }
  });
}

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

void random_uniform(Cpu& exec, float* x, int64_t n, float low, float high, uint64_t seed,
                    uint64_t stream) {
  const double width = static_cast<double>(high) - static_cast<double>(low);
  // Rounding to f32 could give `high`, which is excluded.
  const float largest = high > low ? std::nextafter(high, low) : low;
  for_blocks(exec, x, n, seed, stream, [&](const std::array<uint32_t, 4>& words) {
    std::array<float, 4> values;
    for (size_t i = 0; i < 4; ++i)
      values[i] = std::min(largest, static_cast<float>(low + width * (words[i] * 0x1p-32)));
    return values;
  });
}

void random_normal(Cpu& exec, float* x, int64_t n, float std, uint64_t seed, uint64_t stream) {
  for_blocks(exec, x, n, seed, stream, [&](const std::array<uint32_t, 4>& words) {
    std::array<float, 4> values;
    for (size_t i = 0; i < 4; i += 2) {
      // The half keeps the argument of the logarithm above zero.
      const double radius = std::sqrt(-2 * std::log((words[i] + 0.5) * 0x1p-32));
      const double angle = 2 * std::numbers::pi * (words[i + 1] * 0x1p-32);
      values[i] = static_cast<float>(std * radius * std::cos(angle));
      values[i + 1] = static_cast<float>(std * radius * std::sin(angle));
    }
    return values;
  });
}

double random_unit(uint64_t seed, uint64_t stream, uint64_t index) {
  const auto words = block_of(seed, stream, index);
  return static_cast<double>((uint64_t{words[0]} << 32 | words[1]) >> 11) * 0x1p-53;
}

}  // namespace rodimus
