// Bad input that only a kernel can see (a token id outside the vocabulary) and that the host learns
// when it next waits: memory::download() and wait() read these words and throw. Until then the
// kernels treat the bad value as none, so nothing is read or written out of bounds.
#pragma once

#include <cstdint>

namespace rodimus::cuda {

enum class Fault : int { token_id, target };
inline constexpr int kFaults = 2;

// What lies at Cuda::faults for each kind: the smallest position << 32 | value that was bad, or
// kNoFault, and the size of the vocabulary.
struct FaultWords {
  uint64_t first_bad, limit;
};
inline constexpr uint64_t kNoFault = UINT64_MAX;

}  // namespace rodimus::cuda
