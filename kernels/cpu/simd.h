// Vectors of f32 as wide as the target's registers, using GCC's vector extension: the same source
// compiles to SSE, AVX2 or AVX-512. bf16 is widened on load and rounded to nearest even on store.
// The elementary functions are polynomials without branches; exp and log have a relative error
// below 2e-7, functions built on them below 3e-7. NaN in, NaN out.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#if defined(__AVX2__)
// GCC 12 wrongly warns about undefined operands inside its own AVX-512 functions (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include "kernels/dtype.h"

namespace rodimus::cpu::simd {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(4 * kLanes)));
using VecU = uint32_t __attribute__((vector_size(4 * kLanes)));
using VecH = uint16_t __attribute__((vector_size(2 * kLanes)));  // bf16 bits

// How many lanes a load or store touches: AllLanes compiles to one instruction; an int is for the
// tail.
using AllLanes = std::integral_constant<int, kLanes>;

// Calls f(i, lanes) for i = 0, kLanes, ... < n, the last time with the remaining lanes. Write the
// body once as [&](int64_t i, auto lanes) and pass `lanes` to load and store.
template <class F>
inline void for_lanes(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, AllLanes{});
  if (i < n) f(i, static_cast<int>(n - i));
}

inline Vec broadcast(float x) { return x - Vec{}; }
inline VecU bits_of(Vec x) { return reinterpret_cast<VecU>(x); }
inline Vec from_bits(VecU x) { return reinterpret_cast<Vec>(x); }

inline Vec load(const float* p, AllLanes = {}) {
  Vec x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
// GCC compiles a conversion to four instructions where the target has one, hence the intrinsics
// below.
inline Vec widen(VecH half) {
#if defined(__AVX512F__)
  return from_bits(reinterpret_cast<VecU>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(half)))
                   << 16);
#elif defined(__AVX2__)
  return from_bits(reinterpret_cast<VecU>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(half)))
                   << 16);
#else
  return from_bits(__builtin_convertvector(half, VecU) << 16);
#endif
}
inline Vec load(const bf16* p, AllLanes = {}) {
  VecH half;
  std::memcpy(&half, p, sizeof(half));
  return widen(half);
}
// Lanes beyond the tail read as zero.
inline Vec load(const float* p, int lanes) {
  Vec x{};
  std::memcpy(&x, p, static_cast<size_t>(lanes) * sizeof(float));
  return x;
}
inline Vec load(const bf16* p, int lanes) {
  VecH half{};
  std::memcpy(&half, p, static_cast<size_t>(lanes) * sizeof(bf16));
  return widen(half);
}

// Round to nearest even; NaN stays NaN, as in bf16(float). The AVX512_BF16 instruction for this
// flushes numbers below 2^-126 to zero.
inline VecH narrow(Vec x) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<VecH>(_mm512_cvtneps_pbh(x));
#else
  const VecU u = bits_of(x);
  const VecU rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const VecU quiet = (u >> 16) | 0x40u;
  const VecU bits = x == x ? rounded : quiet;
#if defined(__AVX512F__)
  return reinterpret_cast<VecH>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(bits)));
#elif defined(__AVX2__)
  const auto wide = reinterpret_cast<__m256i>(bits);
  return reinterpret_cast<VecH>(
      _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
#else
  return __builtin_convertvector(bits, VecH);
#endif
#endif
}
inline void store(float* p, Vec x, AllLanes = {}) { std::memcpy(p, &x, sizeof(x)); }
inline void store(bf16* p, Vec x, AllLanes = {}) {
  const VecH half = narrow(x);
  std::memcpy(&p->bits, &half, sizeof(half));
}
inline void store(float* p, Vec x, int lanes) {
  std::memcpy(p, &x, static_cast<size_t>(lanes) * sizeof(float));
}
inline void store(bf16* p, Vec x, int lanes) {
  const VecH half = narrow(x);
  std::memcpy(&p->bits, &half, static_cast<size_t>(lanes) * sizeof(bf16));
}

// Sum of the lanes, pairwise.
inline float reduce_add(Vec x) {
  float lane[kLanes];
  std::memcpy(lane, &x, sizeof(x));
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}

// Each lane = the larger of itself and the lane `width` away, then half the width, down to 1.
template <int width>
inline Vec fold_max(Vec x) {
  if constexpr (width == 0) {
    return x;
  } else {
    VecU swap;
    for (int i = 0; i < kLanes; ++i) swap[i] = static_cast<uint32_t>(i ^ width);
    const Vec other = __builtin_shuffle(x, swap);
    return fold_max<width / 2>(x > other ? x : other);
  }
}
// The largest lane. A NaN may or may not propagate: softmax, the user of this, meets it again in
// the sum of the weights.
inline float reduce_max(Vec x) { return fold_max<kLanes / 2>(x)[0]; }

// Returns the second operand if they are unordered, so max(limit, x) keeps a NaN in x.
inline Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
inline Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}
// a * b + c, rounded once if the target has FMA. For sums whose bits must not depend on the
// surrounding code, as GCC's contraction does.
inline Vec multiply_add(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__) && defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
inline Vec abs(Vec x) { return from_bits(bits_of(x) & 0x7fffffffu); }
inline Vec sqrt(Vec x) {
  Vec y;
  for (int i = 0; i < kLanes; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
}

inline constexpr float kLog2e = 1.44269504f, kLn2 = 0.693147181f;
// Adding 1.5 * 2^23 puts the nearest integer into the low bits.
inline constexpr float kRound = 12582912.0f;

// e^x = 2^n power; `shifted` is n + kRound. |x| at most 104.
//   x = n ln 2 + r, |r| <= ln 2 / 2;  e^r = 1 + r (1 + r q(r)), q interpolated at Chebyshev nodes
//   (1e-8 relative).
struct Exponential {
  Vec shifted, power;
};
inline Exponential exponential(Vec x) {
  const Vec shifted = x * kLog2e + kRound, n = shifted - kRound;
  // ln 2 in two parts; n times the first is exact.
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec q = r * 0.0013926250f + 0.0083632329f;
  q = q * r + 0.0416665524f;
  q = q * r + 0.1666657627f;
  q = q * r + 0.5f;
  return {shifted, (q * r + 1.0f) * r + 1.0f};
}

// e^x. Below -103.97 the result is 0, above 88.73 infinity; denormal results are correct.
inline Vec exp(Vec x) {
  const auto [shifted, power] = exponential(max(broadcast(-104.0f), min(broadcast(89.0f), x)));
  // 2^n as two factors, because n runs from -150 to 128 and 2^n alone has no f32 outside -126 ..
  // 127.
  const VecU whole = bits_of(shifted) - bits_of(broadcast(kRound)) + 256u;  // n + 256 > 0
  const VecU half = whole >> 1;
  return power * from_bits((half - 1u) << 23) * from_bits((whole - half - 1u) << 23);
}

// Cheaper e^x: 0 below -87.68, where e^x is denormal or nearly so, infinity above 88.37.
inline Vec exp_normal(Vec x) {
  const auto [shifted, power] = exponential(max(broadcast(-88.0f), min(broadcast(89.0f), x)));
  // n = -127 gives the bits of 0, n = 128 those of infinity.
  return power * from_bits((bits_of(shifted) << 23) + 0x3f800000u);
}

// sigmoid(x) and 1 - sigmoid(x), each to full relative accuracy, but 0 instead of denormal.
struct SigmoidPair {
  Vec value, complement;
};
inline SigmoidPair sigmoid_pair(Vec x) {
  const Vec e = exp_normal(-abs(x));
  const Vec large = 1.0f / (1.0f + e), small = e * large;
  return {x < 0.0f ? small : large, x < 0.0f ? large : small};
}
inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp_normal(-x)); }
inline Vec silu(Vec x) { return x / (1.0f + exp_normal(-x)); }
// d silu / dx, given sigmoid(x).
inline Vec silu_slope(Vec x, Vec sigmoid_x) { return sigmoid_x * (1.0f + x * (1.0f - sigmoid_x)); }

// Natural logarithm of a positive normal number; infinity and NaN map to themselves.
//   x = 2^n f, f in [sqrt(1/2), sqrt(2));  log f = 2 atanh(s), s = (f - 1) / (f + 1).
inline Vec log_normal(Vec x) {
  const VecU offset = bits_of(x) - 0x3f3504f3u;  // bits of sqrt(1/2)
  using VecI = int32_t __attribute__((vector_size(4 * kLanes)));
  // Arithmetic shift, because n may be negative.
  const Vec n = __builtin_convertvector(reinterpret_cast<VecI>(offset) >> 23, Vec);
  const Vec f = from_bits((offset & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  const Vec s = f / (f + 2.0f), z = s * s;
  Vec p = z * 0.1479284018f + 0.1999432743f;
  p = p * z + 0.3333334327f;
  // log f = f - s * (f - 2 s^2 p): keeps f exact, the correction is small.
  const Vec y = n * 0.693359375f + (n * -2.12194440e-4f - s * (f - 2.0f * z * p) + f);
  return x < std::numeric_limits<float>::infinity() ? y : x;
}

// Natural logarithm; log(0) = -inf, negative gives NaN.
inline Vec log(Vec x) {
  const auto tiny = x < std::numeric_limits<float>::min();
  const Vec y = log_normal(tiny ? x * 0x1p23f : x) - (tiny ? broadcast(15.9423847f) : Vec{});
  const Vec positive = x < 0.0f ? broadcast(std::numeric_limits<float>::quiet_NaN()) : y;
  return x == 0.0f ? broadcast(-std::numeric_limits<float>::infinity()) : positive;
}

// log(1 + e) for e in [0, 1], within 2e-7 relative: e times a polynomial in e - 1/2, interpolated
// at Chebyshev nodes (3e-8). No division.
inline Vec log1p_unit(Vec e) {
  const Vec c = e - 0.5f;
  Vec p = c * 5.12610236e-3f - 8.56965594e-3f;
  p = p * c + 1.16395755e-2f;
  p = p * c - 2.02303398e-2f;
  p = p * c + 3.66256051e-2f;
  p = p * c - 6.77111894e-2f;
  p = p * c + 1.32609501e-1f;
  p = p * c - 2.88526684e-1f;
  p = p * c + 8.10930192e-1f;
  return e * p;
}

// log(1 + e^x).
inline Vec softplus(Vec x) { return max(Vec{}, x) + log1p_unit(exp(-abs(x))); }

}  // namespace rodimus::cpu::simd
