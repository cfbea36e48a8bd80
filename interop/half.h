// IEEE binary16 ("f16"): 5 bits of exponent, 10 of fraction.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace rodimus {

inline constexpr float kLargestHalf = 65504;

// Exact.
inline float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu, fraction = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24, exact in f32
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 127 - 15;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

// Rounds to nearest even. |value| must be at most kLargestHalf.
inline uint16_t to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), sign = (bits >> 16) & 0x8000u;
  const float magnitude = std::abs(value);
  if (magnitude < 0x1p-14f) {  // a multiple of 2^-24, as the subnormal numbers are; 2^10 is 2^-14
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(magnitude * 0x1p24f)));
  }
  const uint32_t u = bits & 0x7fffffffu;
  const uint32_t rounded = u + 0xfffu + ((u >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - ((127u - 15u) << 23)) >> 13));
}

}  // namespace rodimus
