#include "kernels/cpu/ddts_chunk.h"

#include <cmath>

namespace rodimus::ddts {
namespace {

using micro::ALayout;
using micro::kTileCols;
using simd::kLanes;
using simd::Vec;

// Products of decays below 2^-100 count as zero: less than a rounding error of anything they could
// be added to, and arithmetic on denormals is slow. NaN stays.
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
  const int64_t Kp = f.Kp;
  const float scale = 1.0f / std::sqrt(static_cast<float>(in.K));
  if (in.K < Kp || in.length < kChunk) {
    std::fill_n(f.q, kChunk * Kp, 0.0f);
    std::fill_n(f.k, kChunk * Kp, 0.0f);
    std::fill_n(f.decay, kChunk * Kp, 0.0f);  // holds g until the second loop
  }
  bool reset[kSubs] = {};
  for (int64_t t = 0; t < in.length; ++t) {
    if (is_start(in.starts, t, in.t0)) reset[t / kSub] = true;
    simd::for_lanes(in.K, [&](int64_t c, auto lanes) {
      simd::store(f.q + t * Kp + c, simd::load(in.q + t * in.K + c, lanes) * scale);
      simd::store(f.k + t * Kp + c, simd::load(in.k + t * in.K + c, lanes));
      simd::store(f.decay + t * Kp + c, simd::load(in.g + t * in.K + c, lanes));
    });
  }
  const bool any_reset = std::any_of(reset, reset + kSubs, [](bool r) { return r; });
  for (int64_t c = 0; c < Kp; c += kLanes) {
    Vec chunk_sum{};
    for (int64_t s = 0; s < kSubs; ++s) {
      const int64_t first = s * kSub;
      Vec sub_sum{}, product = simd::broadcast(1.0f);
      for (int64_t t = first; t < first + kSub; ++t) {
        const int64_t at = t * Kp + c;
        const Vec g = simd::load(f.decay + at);
        const Vec decay =
            t < in.length && is_start(in.starts, t, in.t0) ? Vec{} : flush(simd::exp(g));
        sub_sum += g;
        product = flush(product * decay);
        simd::store(f.decay + at, decay);
        simd::store(f.q_decay + at, product);
        simd::store(f.q_local + at, product * simd::load(f.q + at));
      }
      product = simd::broadcast(1.0f);
      for (int64_t t = first + kSub - 1; t >= first; --t) {
        const int64_t at = t * Kp + c;
        simd::store(f.k_decay + at, product);
        simd::store(f.k_local + at, product * simd::load(f.k + at));
        product = flush(product * simd::load(f.decay + at));
      }
      simd::store(f.sub_decay + s * Kp + c, reset[s] ? Vec{} : flush(simd::exp(sub_sum)));
      chunk_sum += sub_sum;
    }
    simd::store(f.chunk_decay + c, any_reset ? Vec{} : flush(simd::exp(chunk_sum)));
  }
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

void scores(float* a, int64_t ld, const ChunkFactors& f, int64_t length) {
  const int64_t Kp = f.Kp;
  const memory::Scratch<float> keys(Kp * kLd), queries(kSub * Kp);
  micro::transpose(keys.data(), kLd, f.k_local, Kp, kChunk, Kp);
  alignas(64) float block[kSub * kTileCols];
  for (int64_t row = 0; row < kChunk; row += kSub) {
    for (int64_t i = row; i < row + kSub; ++i) std::fill_n(a + i * ld, kChunk, 0.0f);
    if (row >= length) continue;
    std::copy_n(f.q_local + row * Kp, kSub * Kp, queries.data());
    for (int64_t col = row - kSub; col >= 0; col -= kSub) {
      micro::product<ALayout::kRows>(block, kTileCols, queries.data(), Kp, keys.data() + col, kLd,
                                     kSub, kSub, Kp, micro::Zero{});
      for (int64_t i = 0; i < kSub; ++i)
        std::copy_n(block + i * kTileCols, kSub, a + (row + i) * ld + col);
      scale_columns(queries.data(), f.sub_decay + col / kSub * Kp, Kp);
    }
    const int64_t at = row * Kp;
    diagonal_scores(a + row * ld + row, ld, f.q + at, f.k + at, f.decay + at, Kp);
  }
}

template void load_factors<float>(ChunkFactors&, const ChunkInputs<float>&);
template void load_factors<bf16>(ChunkFactors&, const ChunkInputs<bf16>&);

}  // namespace rodimus::ddts
