// Reductions by blocks of a fixed size, combined in ascending order.
#include "kernels/reduce.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/parallel.h"

namespace rodimus {

using namespace cpu;
namespace {

// The results of f(begin, end) for each block of `block` items; Sum is the result type.
template <class Sum, class F>
memory::Scratch<Sum> per_block(const Cpu& exec, int64_t n, int64_t block, int64_t blocks, F&& f) {
  memory::Scratch<Sum> results(blocks);
  parallel_for(exec, blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) results[b] = f(b * block, std::min(n, (b + 1) * block));
  });
  return results;
}

// Squares and sums in double: an f32 square overflows at 1.8e19. A separate function, because GCC
// gathers element by element through a pointer captured by reference.
template <bool kSquare>
double block_sum(const float* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const double value = x[i];
    sum += kSquare ? value * value : value;
  }
  return sum;
}

template <bool kSquare>
double reduce(const Cpu& exec, const float* x, int64_t n) {
  const int64_t blocks = (n + kReduceBlock - 1) / kReduceBlock;
  const auto sums = per_block<double>(
      exec, n, kReduceBlock, blocks,
      [x](int64_t begin, int64_t end) { return block_sum<kSquare>(x + begin, end - begin); });
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += sums[b];
  return total;
}

constexpr int64_t kPartAlign = 4;  // elements per load on the GPU

constexpr uint64_t kFnvOffset = 0xcbf29ce484222325u, kFnvPrime = 0x100000001b3u;

// For each word, a bijection of `hash`. The shift moves high bits down: the product alone never
// does, and two flipped sign bits would cancel.
uint64_t fnv(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * kFnvPrime;
  return hash ^ (hash >> 32);
}

}  // namespace

std::vector<ArrayPart> blocks_of(std::span<const ArrayPart> parts) {
  std::vector<ArrayPart> blocks;
  for (const ArrayPart& part : parts) {
    CHECK(part.begin % kPartAlign == 0, "a part of an array begins at element ", part.begin,
          ", which is not a multiple of ", kPartAlign);
    for (int64_t at = 0; at < part.size; at += kReduceBlock)
      blocks.push_back({part.begin + at, std::min(kReduceBlock, part.size - at)});
  }
  return blocks;
}

double sum_of_squares(Cpu& exec, const float* x, int64_t n) { return reduce<true>(exec, x, n); }

double sum_of_squares(Cpu& exec, const float* x, std::span<const ArrayPart> parts) {
  const std::vector<ArrayPart> blocks = blocks_of(parts);
  const auto count = static_cast<int64_t>(blocks.size());
  const auto sums = per_block<double>(exec, count, 1, count, [&](int64_t b, int64_t) {
    const ArrayPart& block = blocks[static_cast<size_t>(b)];
    return block_sum<true>(x + block.begin, block.size);
  });
  double total = 0;
  for (int64_t b = 0; b < count; ++b) total += sums[b];
  return total;
}

double sum(Cpu& exec, const float* x, int64_t n) { return reduce<false>(exec, x, n); }

uint64_t hash_bytes(Cpu& exec, const void* data, int64_t bytes) {
  const int64_t block = kReduceBlock * static_cast<int64_t>(sizeof(float));
  const int64_t blocks = (bytes + block - 1) / block;
  const auto* const bytes_of = static_cast<const std::byte*>(data);
  const auto hashes =
      per_block<uint64_t>(exec, bytes, block, blocks, [&](int64_t begin, int64_t end) {
        uint64_t hash = kFnvOffset;
        int64_t at = begin;
        for (; at + 8 <= end; at += 8) {
          uint64_t word;
          std::memcpy(&word, bytes_of + at, sizeof(word));
          hash = fnv(hash, word);
        }
        if (at < end) {
          uint64_t word = 0;  // padded with zeros
          std::memcpy(&word, bytes_of + at, static_cast<size_t>(end - at));
          hash = fnv(hash, word);
        }
        return hash;
      });
  uint64_t hash = fnv(kFnvOffset, static_cast<uint64_t>(bytes));  // distinguishes padding from data
  for (int64_t b = 0; b < blocks; ++b) hash = fnv(hash, hashes[b]);
  return hash;
}

}  // namespace rodimus
