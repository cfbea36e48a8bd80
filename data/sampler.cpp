#include "data/sampler.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace rodimus {
namespace {

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every input bit.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Four rounds make a Feistel network a pseudo-random permutation (Luby, Rackoff 1988); the tiny
// domains of small corpora need a few more.
constexpr uint64_t kRounds = 8;

}  // namespace

Sampler::Sampler(uint64_t n, uint64_t seed, bool shuffle)
    : n_(n),
      seed_(seed),
      half_bits_(std::max(1, (static_cast<int>(std::bit_width(n - 1)) + 1) / 2)),
      shuffle_(shuffle) {
  CHECK(n >= 1, "Sampler: no windows");
}

uint64_t Sampler::window(uint64_t sample) const {
  uint64_t x = sample % n_;
  if (!shuffle_) return x;
  const uint64_t key = mix(mix(seed_) ^ (sample / n_));
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  // Cycle walking: apply the permutation of the larger domain until it lands inside [0, n). The
  // domain is below 4n, so that takes fewer than four steps on average.
  do {
    uint64_t left = x >> half_bits_, right = x & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (mix(key + round * 0xd1342543de82ef95 + right) & mask);
      left = right;
      right = next;
    }
    x = (left << half_bits_) | right;
  } while (x >= n_);
  return x;
}

}  // namespace rodimus
