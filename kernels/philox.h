// Counter-based random numbers: element i of stream s is a pure function of (seed, s, i), so
// initialisation does not depend on threads, ranks or order.        Philox-4x32-10: Salmon et al.
// 2011, "Parallel random numbers: as easy as 1, 2, 3".
#pragma once

#include <array>

#include "kernels/exec.h"

namespace rodimus {

// The 10-round block function; the test checks known-answer vectors.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// x[i] uniform in [low, high) or normal(mean 0, std), from element i of stream `stream`. x (n) f32.
//   words w0..w3 of block i / 4 = philox4x32({low and high half of i / 4, of stream}, {of seed});
//   uniform: low + (high - low) w[i % 4] 2^-32;  normal, by pairs (Box and Muller 1958):
//   std sqrt(-2 ln((w0 + 0.5) 2^-32)) times cos, then sin, of 2 pi w1 2^-32.  In double.
void random_uniform(Cpu&, float* x, int64_t n, float low, float high, uint64_t seed,
                    uint64_t stream);
void random_uniform(Cuda&, float* x, int64_t n, float low, float high, uint64_t seed,
                    uint64_t stream);
void random_normal(Cpu&, float* x, int64_t n, float std, uint64_t seed, uint64_t stream);
void random_normal(Cuda&, float* x, int64_t n, float std, uint64_t seed, uint64_t stream);

// One number in [0, 1), for host decisions (sampling): 53 bits.
double random_unit(uint64_t seed, uint64_t stream, uint64_t index);

}  // namespace rodimus
