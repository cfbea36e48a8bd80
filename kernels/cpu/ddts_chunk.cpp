#include "kernels/cpu/ddts_chunk.h"

#include <cmath>

namespace rodimus::cpu::ddts {
namespace {

using micro::ALayout;
using micro::kTileCols;
using simd::kLanes;
using simd::Vec;

// Products of decays below 2^-100 count as zero: they are smaller than the rounding error of
// anything they could be added to, and denormal arithmetic is slow. NaN stays NaN.
Vec flush(Vec x) { return x < 0x1p-100f ? Vec{} : x; }

bool is_start(const int32_t* starts, int64_t t, int64_t t0) {
  return starts != nullptr && t0 + t > 0 && starts[t] == t0 + t;
}

// rows (kSub, Kp) *= scale (Kp).
void scale_columns(float* rows, const float* scale, int64_t Kp) {
  for (int64_t i = 0; i < kSub; ++i)
    for (int64_t c = 0; c < Kp; c += kLanes)
      simd::store(rows + i * Kp + c, simd::load(rows + i * Kp + c) * simd::load(scale + c));
}

// Lane e of the result is the sum of the lanes of part[e].
Vec sum_each(Vec* part) {
  micro::transpose_lanes(part);
#pragma GCC unroll 4
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}

// The kSub x kSub block on the diagonal, row by row: w = q_i times the decays between j and i.
void diagonal_scores(float* a, int64_t ld, const float* q, const float* k, const float* decay,
                     int64_t Kp) {
  for (int64_t i = 0; i < kSub; ++i) {
    Vec part[kSub] = {};
    for (int64_t c = 0; c < Kp; c += kLanes) {
      Vec w = simd::load(q + i * Kp + c);
      for (int64_t j = i; j >= 0; --j) {
        part[j] += w * simd::load(k + j * Kp + c);
        w = w * simd::load(decay + j * Kp + c);
      }
    }
    for (int64_t j = 0; j < kSub; j += kLanes) simd::store(a + i * ld + j, sum_each(part + j));
  }
}

}  // namespace

template <class T>
void load_factors(ChunkFactors& f, const ChunkInputs<T>& in) {
  const int64_t K = in.K, Kp = f.Kp;
  const float scale = 1.0f / std::sqrt(static_cast<float>(K));
  if (K < Kp) f.clear();
  std::fill_n(f.chunk_decay, Kp, 0.0f);  // holds the sum of g until the end
  bool any_reset = false;
  // Row by row within a sub-chunk: its part of all seven arrays stays in the L1 cache.
  for (int64_t s = 0; s < kSubs; ++s) {
    const int64_t first = s * kSub, last = first + kSub - 1;
    float* sub_sum = f.sub_decay + s * Kp;
    std::fill_n(sub_sum, Kp, 0.0f);
    bool reset = false;
    for (int64_t t = first; t <= last; ++t) {
      const bool token = t < in.length, start = token && is_start(in.starts, t, in.t0);
      reset |= start;
      simd::for_lanes(K, [&](int64_t c, auto lanes) {
        const int64_t at = t * Kp + c, from = t * K + c;
        const Vec g = token ? simd::load(in.g + from, lanes) : Vec{};
        const Vec q = token ? simd::load(in.q + from, lanes) * scale : Vec{};
        const Vec decay = start ? Vec{} : flush(simd::exp(g));
        const Vec product = t == first ? decay : flush(simd::load(f.q_decay + at - Kp) * decay);
        simd::store(sub_sum + c, simd::load(sub_sum + c) + g);
        simd::store(f.q + at, q);
        simd::store(f.decay + at, decay);
        simd::store(f.q_decay + at, product);
        simd::store(f.q_local + at, product * q);
      });
    }
    for (int64_t t = last; t >= first; --t) {
      const bool token = t < in.length;
      simd::for_lanes(K, [&](int64_t c, auto lanes) {
        const int64_t at = t * Kp + c;
        const Vec k = token ? simd::load(in.k + t * K + c, lanes) : Vec{};
        const Vec product =
            t == last ? simd::broadcast(1.0f)
                      : flush(simd::load(f.k_decay + at + Kp) * simd::load(f.decay + at + Kp));
        simd::store(f.k + at, k);
        simd::store(f.k_decay + at, product);
        simd::store(f.k_local + at, product * k);
      });
    }
    any_reset |= reset;
    simd::for_lanes(K, [&](int64_t c, auto) {
      const Vec sum = simd::load(sub_sum + c);
      simd::store(f.chunk_decay + c, simd::load(f.chunk_decay + c) + sum);
      simd::store(sub_sum + c, reset ? Vec{} : flush(simd::exp(sum)));
    });
  }
  simd::for_lanes(K, [&](int64_t c, auto) {
    const Vec sum = simd::load(f.chunk_decay + c);
    simd::store(f.chunk_decay + c, any_reset ? Vec{} : flush(simd::exp(sum)));
  });
}

void queries_from_entry(float* out, int64_t ld, const ChunkFactors& f) {
  for (int64_t c = 0; c < f.Kp; c += kLanes) {
    Vec before = simd::broadcast(1.0f);
    for (int64_t s = 0; s < kSubs; ++s) {
      for (int64_t t = s * kSub; t < (s + 1) * kSub; ++t)
        simd::store(out + t * ld + c, before * simd::load(f.q_local + t * f.Kp + c));
      before = flush(before * simd::load(f.sub_decay + s * f.Kp + c));
    }
  }
}

void keys_to_exit(float* out, int64_t ld, const ChunkFactors& f) {
  for (int64_t c = 0; c < f.Kp; c += kLanes) {
    Vec after = simd::broadcast(1.0f);
    for (int64_t s = kSubs - 1; s >= 0; --s) {
      for (int64_t t = s * kSub; t < (s + 1) * kSub; ++t)
        simd::store(out + t * ld + c, after * simd::load(f.k_local + t * f.Kp + c));
      after = flush(after * simd::load(f.sub_decay + s * f.Kp + c));
    }
  }
}

void scores(float* a, int64_t ld, const ChunkFactors& f, int64_t length, float* workspace) {
  const int64_t Kp = f.Kp;
  float *keys = workspace, *queries = keys + Kp * kLd;
  micro::transpose(keys, kLd, f.k_local, Kp, kChunk, Kp);
  constexpr int64_t kLdBlock = std::max<int64_t>(kSub, kTileCols);
  alignas(64) float block[kSub * kLdBlock];
  for (int64_t row = 0; row < kChunk; row += kSub) {
    for (int64_t i = row; i < row + kSub; ++i) std::fill_n(a + i * ld, kChunk, 0.0f);
    if (row >= length) continue;
    std::copy_n(f.q_local + row * Kp, kSub * Kp, queries);
    for (int64_t col = row - kSub; col >= 0; col -= kSub) {
      micro::product<ALayout::kRows>(block, kLdBlock, queries, Kp, keys + col, kLd, kSub, kSub, Kp,
                                     micro::Zero{});
      for (int64_t i = 0; i < kSub; ++i)
        std::copy_n(block + i * kLdBlock, kSub, a + (row + i) * ld + col);
      scale_columns(queries, f.sub_decay + col / kSub * Kp, Kp);
    }
    const int64_t at = row * Kp;
    diagonal_scores(a + row * ld + row, ld, f.q + at, f.k + at, f.decay + at, Kp);
  }
}

template void load_factors<float>(ChunkFactors&, const ChunkInputs<float>&);
template void load_factors<bf16>(ChunkFactors&, const ChunkInputs<bf16>&);

}  // namespace rodimus::cpu::ddts
