// FLOP counts, kept apart from the ops so that code which only reads a configuration does not link
// the kernels.
#include <algorithm>

#include "autograd/ops.h"

namespace rodimus {

double matmul_flops(int64_t m, int64_t n, int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

double ddts_flops(int64_t T, int64_t K, int64_t V) {
  constexpr int64_t kChunk = 64;
  const int64_t rest = T % kChunk;
  const int64_t pairs = T / kChunk * (kChunk * (kChunk + 1) / 2) + rest * (rest + 1) / 2;
  return 2 * matmul_flops(T, K, V) + matmul_flops(pairs, 1, K + V);
}

double ska_flops(int64_t T, int64_t Tk, int64_t width, int64_t left) {
  // Query i sees min(i + past, left) earlier keys and itself; the first `growing` queries see fewer
  // than left.
  const int64_t past = Tk - T;
  const int64_t growing = left < 0 ? T : std::clamp<int64_t>(left - past, 0, T);
  const int64_t earlier =
      growing * past + growing * (growing - 1) / 2 + (T - growing) * std::max<int64_t>(left, 0);
  return 2 * matmul_flops(earlier + T, 1, width);
}

}  // namespace rodimus
