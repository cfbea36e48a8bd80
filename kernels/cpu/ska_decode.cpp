// One task per (batch entry, head, query): scores as dot products along D, a two-pass softmax over
// the window, then the weighted sum of the value rows. Nothing is packed. Workspace: one row of
// scores per thread.
#include "kernels/cpu/ska_decode.h"

#include <omp.h>

#include <cmath>

#include "kernels/cpu/ska_tiles.h"
#include "kernels/memory.h"
#include "kernels/parallel.h"

namespace rodimus::ska {
namespace {

// Rows this far ahead are asked for early: they lie a page or so apart, where the hardware does not
// prefetch.
constexpr int64_t kAhead = 16;

template <class T>
void prefetch(const T* row, int64_t count) {
  for (int64_t d = 0; d < count; d += 64 / static_cast<int64_t>(sizeof(T)))
    __builtin_prefetch(row + d);
}

// scores[j] = factor * <q, k_j>, kLanes keys at a time: their sums are independent, and one
// transposition turns the lanes of all of them into scores. Writes up to a multiple of kLanes.
template <class T>
void dot_rows(float* scores, const T* q, const T* k, int64_t stride, int64_t keys, int64_t dim,
              float factor) {
  for (int64_t j = 0; j < keys; j += kLanes) {
    Vec sum[kLanes] = {};
    const T* row[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) row[i] = k + std::min(j + i, keys - 1) * stride;
    simd::for_lanes(dim, [&](int64_t d, auto lanes) {
      const Vec left = simd::load(q + d, lanes);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes; ++i) sum[i] += left * simd::load(row[i] + d, lanes);
    });
    alignas(64) float lanes_of_key[kLanes * kLanes], keys_of_lane[kLanes * kLanes];
    for (int64_t i = 0; i < kLanes; ++i) simd::store(lanes_of_key + i * kLanes, sum[i]);
    micro::transpose(keys_of_lane, kLanes, lanes_of_key, kLanes, kLanes, kLanes);
    Vec total{};
    for (int64_t i = 0; i < kLanes; ++i) total += simd::load(keys_of_lane + i * kLanes);
    simd::store(scores + j, factor * total);
  }
}

// o = sum_j weights[j] v_j / total, eight vectors of o at a time so that the sums stay in
// registers.
template <class T>
void weighted_sum(T* o, const float* weights, const T* v, int64_t stride, int64_t keys, int64_t dim,
                  float total) {
  constexpr int kVectors = 8;
  constexpr int64_t kStrip = kVectors * kLanes;
  int64_t d = 0;
  for (; d + kStrip <= dim; d += kStrip) {
    Vec sum[kVectors] = {};
    for (int64_t j = 0; j < keys; ++j) {
      if (j + kAhead < keys) prefetch(v + (j + kAhead) * stride + d, kStrip);
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i)
        sum[i] += weights[j] * simd::load(v + j * stride + d + i * kLanes);
    }
    for (int i = 0; i < kVectors; ++i) simd::store(o + d + i * kLanes, sum[i] / total);
  }
  simd::for_lanes(dim - d, [&](int64_t e, auto lanes) {
    Vec sum{};
    for (int64_t j = 0; j < keys; ++j)
      sum += weights[j] * simd::load(v + j * stride + d + e, lanes);
    simd::store(o + d + e, sum / total, lanes);
  });
}

}  // namespace

template <class T>
void decode(Cpu& exec, T* o, float* lse, const T* q, const T* k, const T* v, const int32_t* starts,
            const SkaDims& dims) {
  const int64_t row_size = round_up(dims.Tk, 16);
  const memory::Scratch<float> scratch(std::max(exec.threads, 1) * row_size);
  parallel_tasks(exec, dims.B * dims.H * dims.T, [&](int64_t task) {
    const int64_t i = task % dims.T, h = task / dims.T % dims.H, b = task / dims.T / dims.H;
    const Range seen = visible_keys(dims, starts == nullptr ? nullptr : starts + b * dims.T, i);
    const int64_t keys = seen.end - seen.begin, first = b * dims.Tk + seen.begin;
    const int64_t query = (b * dims.T + i) * dims.H + h;
    float* scores = scratch.data() + omp_get_thread_num() * row_size;
    dot_rows(scores, q + query * dims.D, k + (first * dims.Hk + h % dims.Hk) * dims.D,
             dims.Hk * dims.D, keys, dims.D, simd::kLog2e / std::sqrt(static_cast<float>(dims.D)));
    // A NaN score is passed over here and comes back through exp2.
    float largest = -std::numeric_limits<float>::infinity();
    for (int64_t j = 0; j < keys; ++j) largest = std::max(largest, scores[j]);
    Vec sum{};
    const int64_t end = round_up(keys, kLanes);
    std::fill(scores + keys, scores + end, -std::numeric_limits<float>::infinity());
    for (int64_t j = 0; j < end; j += kLanes) {
      const Vec weight = simd::exp2(simd::load(scores + j) - largest);
      sum += weight;
      simd::store(scores + j, weight);
    }
    const float total = simd::reduce_add(sum);
    lse[(b * dims.H + h) * dims.T + i] = largest * simd::kLn2 + std::log(total);
    weighted_sum(o + query * dims.D, scores, v + (first * dims.Hv + h % dims.Hv) * dims.D,
                 dims.Hv * dims.D, keys, dims.D, total);
  });
}

template void decode(Cpu&, float*, float*, const float*, const float*, const float*, const int32_t*,
                     const SkaDims&);
template void decode(Cpu&, bf16*, float*, const bf16*, const bf16*, const bf16*, const int32_t*,
                     const SkaDims&);

}  // namespace rodimus::ska
