// Element types. bf16 is storage only: load, compute in f32, round once on store.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/error.h"

namespace rodimus {

enum class DType : uint8_t { f32, bf16, i32 };

struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  // Round to nearest even; NaN stays NaN (its payload is truncated and the quiet bit set).
  explicit bf16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};
static_assert(sizeof(bf16) == 2);

template <class T>
inline float to_f32(T value) {
  return static_cast<float>(value);
}
template <class T>
inline T from_f32(float value) {
  return T(value);
}

inline constexpr size_t size_of(DType dtype) { return dtype == DType::bf16 ? 2 : 4; }
inline constexpr const char* name_of(DType dtype) {
  return dtype == DType::f32 ? "f32" : dtype == DType::bf16 ? "bf16" : "i32";
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};

// Half a unit in the last place, relative: the rounding error of one store.
inline constexpr double epsilon_of(DType dtype) { return dtype == DType::bf16 ? 0x1p-8 : 0x1p-24; }

}  // namespace rodimus
