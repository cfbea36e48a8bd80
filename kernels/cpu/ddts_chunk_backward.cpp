#include "kernels/cpu/ddts_chunk.h"

namespace rodimus::cpu::ddts {
namespace {

using micro::ALayout;
using simd::kLanes;
using simd::Vec;

// Paths that end in sub-chunk s's queries (dq) or start at its keys (dk), and their contribution to
// dg: inside the sub-chunk as suffix and prefix sums, and in `across` for sub-chunks that lie
// entirely between source and sink.
class PathSums {
 public:
  // across (kSubs, Kp): the sums over paths that cross whole sub-chunks.
  PathSums(const ChunkFactors& factors, const float* da_t, int64_t length, float* across)
      : f_(factors), da_t_(da_t), subs_((length + kSub - 1) / kSub), across_(across) {}

  float* across(int64_t s) const { return across_ + s * f_.Kp; }

  // Entry state -> exit state passes through every token.
  void start(const float* state_dot) {
    for (int64_t s = 0; s < kSubs; ++s)
      for (int64_t c = 0; c < f_.Kp; c += kLanes)
        simd::store(across(s) + c, simd::load(f_.chunk_decay + c) * simd::load(state_dot + c));
  }

  // u (kSub, Kp) gathers sources in time order: the entry state, then the keys of each earlier
  // sub-chunk. Until sub-chunk s is added, all paths in u cross the whole of s.
  void queries(float* u, int64_t sub) {
    for (int64_t s = 0; s < sub; ++s) {
      for (int64_t c = 0; c < f_.Kp; c += kLanes) {
        Vec total{};
        for (int64_t i = 0; i < kSub; ++i)
          total +=
              simd::load(f_.q_local + (sub * kSub + i) * f_.Kp + c) * simd::load(u + i * f_.Kp + c);
        const Vec decay = simd::load(f_.sub_decay + s * f_.Kp + c);
        for (int64_t between = s; between < sub; ++between)
          total *= simd::load(f_.sub_decay + between * f_.Kp + c);
        simd::store(across(s) + c, simd::load(across(s) + c) + total);
        for (int64_t i = 0; i < kSub; ++i)
          simd::store(u + i * f_.Kp + c, simd::load(u + i * f_.Kp + c) * decay);
      }
      micro::product<ALayout::kColumns>(u, f_.Kp, da_t_ + s * kSub * kLd + sub * kSub, kLd,
                                        f_.k_local + s * kSub * f_.Kp, f_.Kp, kSub, f_.Kp, kSub,
                                        micro::Keep{});
    }
  }

  // w (kSub, Kp) gathers sinks in reverse: the exit state, then the queries of each later
  // sub-chunk. Only paths to the exit state are counted as crossing later sub-chunks here;
  // queries() counted those between tokens.
  void keys(float* w, int64_t sub) {
    for (int64_t c = 0; c < f_.Kp; c += kLanes) {
      Vec total{};
      for (int64_t j = 0; j < kSub; ++j)
        total +=
            simd::load(f_.k_local + (sub * kSub + j) * f_.Kp + c) * simd::load(w + j * f_.Kp + c);
      for (int64_t s = sub + 1; s < kSubs; ++s) total *= simd::load(f_.sub_decay + s * f_.Kp + c);
      for (int64_t s = sub + 1; s < kSubs; ++s)
        simd::store(across(s) + c, simd::load(across(s) + c) + total);
    }
    for (int64_t s = kSubs - 1; s > sub; --s) {
      for (int64_t c = 0; c < f_.Kp; c += kLanes) {
        const Vec decay = simd::load(f_.sub_decay + s * f_.Kp + c);
        for (int64_t j = 0; j < kSub; ++j)
          simd::store(w + j * f_.Kp + c, simd::load(w + j * f_.Kp + c) * decay);
      }
      if (s >= subs_) continue;
      micro::product<ALayout::kRows>(w, f_.Kp, da_t_ + sub * kSub * kLd + s * kSub, kLd,
                                     f_.q_local + s * kSub * f_.Kp, f_.Kp, kSub, f_.Kp, kSub,
                                     micro::Keep{});
    }
  }

 private:
  const ChunkFactors& f_;
  const float* da_t_;
  const int64_t subs_;  // sub-chunks that contain tokens
  float* const across_;
};

// One sub-chunk, kLanes keys: turns the sums over other sub-chunks into gradients by adding the
// pairs inside. Pointers point at (first token, c); rows are Kp apart.
struct SubPointers {
  const float *q, *k, *decay, *q_decay, *k_decay;
  float *dq, *dk, *dg;
};

void within_sub(const SubPointers& p, const float* da_t, Vec across, int64_t Kp) {
  Vec dq[kSub], dk[kSub], dg[kSub], sink[kSub];
  Vec prefix = across;
  for (int64_t t = 0; t < kSub; ++t) {
    const int64_t at = t * Kp;
    dq[t] = simd::load(p.dq + at) * simd::load(p.q_decay + at);
    dk[t] = simd::load(p.dk + at) * simd::load(p.k_decay + at);
    dg[t] = prefix;
    prefix += dk[t] * simd::load(p.k + at);
  }
  Vec suffix{};
  for (int64_t t = kSub - 1; t >= 0; --t) {
    suffix += dq[t] * simd::load(p.q + t * Kp);
    dg[t] += suffix;
  }
  for (int64_t j = 0; j < kSub; ++j) {
    // sink[i]: gradient at token i of the part of the state written by key j.
    const float* da = da_t + j * kLd;
    Vec y{};
    for (int64_t i = kSub - 1; i > j; --i) {
      sink[i] = y = y + da[i] * simd::load(p.q + i * Kp);
      y *= simd::load(p.decay + i * Kp);
    }
    dk[j] += y + da[j] * simd::load(p.q + j * Kp);
    Vec w = simd::load(p.k + j * Kp);  // the part written by key j
    dq[j] += da[j] * w;
    for (int64_t i = j + 1; i < kSub; ++i) {
      w *= simd::load(p.decay + i * Kp);
      dq[i] += da[i] * w;
      dg[i] += w * sink[i];
    }
  }
  for (int64_t t = 0; t < kSub; ++t) {
    simd::store(p.dq + t * Kp, dq[t]);
    simd::store(p.dk + t * Kp, dk[t]);
    simd::store(p.dg + t * Kp, dg[t]);
  }
}

}  // namespace

void backward_within(float* dq, float* dk, float* dg, const float* da_t, const float* state_dot,
                     const ChunkFactors& f, int64_t length, float* across) {
  PathSums paths(f, da_t, length, across);
  paths.start(state_dot);
  for (int64_t row = 0; row < length; row += kSub) {
    paths.queries(dq + row * f.Kp, row / kSub);
    paths.keys(dk + row * f.Kp, row / kSub);
  }
  for (int64_t row = 0; row < length; row += kSub) {
    for (int64_t c = 0; c < f.Kp; c += kLanes) {
      const int64_t at = row * f.Kp + c;
      within_sub({f.q + at, f.k + at, f.decay + at, f.q_decay + at, f.k_decay + at, dq + at,
                  dk + at, dg + at},
                 da_t + row * kLd + row, simd::load(paths.across(row / kSub) + c), f.Kp);
    }
  }
}

}  // namespace rodimus::cpu::ddts
