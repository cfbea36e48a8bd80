// Whole-array reductions, in a fixed order: blocks of kReduceBlock elements, block sums added in
// ascending order in double.
#pragma once

#include <span>
#include <vector>

#include "kernels/exec.h"

namespace rodimus {

inline constexpr int64_t kReduceBlock = 65536;

// sum of x[i]^2 and sum of x[i], in double. NaN and infinity propagate. x (n) f32.
double sum_of_squares(Cpu&, const float* x, int64_t n);
double sum_of_squares(Cuda&, const float* x, int64_t n);
double sum(Cpu&, const float* x, int64_t n);
double sum(Cuda&, const float* x, int64_t n);

// sum of x[i]^2 over `parts` of x. Blocks restart in every part, and the sums of all blocks are
// added in the order of the parts, so the bits do not depend on where the parts lie in x. Throws
// Error unless every part begins at a multiple of 4 elements.
struct ArrayPart {
  int64_t begin, size;
};
double sum_of_squares(Cpu&, const float* x, std::span<const ArrayPart> parts);
double sum_of_squares(Cuda&, const float* x, std::span<const ArrayPart> parts);

// The blocks of `parts`, each no longer than kReduceBlock.
std::vector<ArrayPart> blocks_of(std::span<const ArrayPart> parts);

// 64-bit hash of n bytes: equal bytes give equal hashes, on any number of threads. Used to check
// that all ranks hold the same parameters. FNV-1a over 8-byte words (h = (h ^ word) * prime; h ^= h
// >> 32), restarted in every block of 4 kReduceBlock bytes; then over n and the block hashes in
// order.
uint64_t hash_bytes(Cpu&, const void* data, int64_t bytes);
uint64_t hash_bytes(Cuda&, const void* data, int64_t bytes);

}  // namespace rodimus
