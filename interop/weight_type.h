// The types in which weights are stored.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rodimus {

enum class WeightType : uint8_t { f32, bf16, f16 };

struct WeightTypeNames {
  const char* option;       // of --dtype
  const char* safetensors;  // in the header of a file
  const char* torch;        // in config.json
  size_t bytes;             // of one number
};
inline constexpr WeightTypeNames names_of(WeightType type) {
  switch (type) {
    case WeightType::bf16:
      return {"bf16", "BF16", "bfloat16", 2};
    case WeightType::f16:
      return {"f16", "F16", "float16", 2};
    case WeightType::f32:
      break;
  }
  return {"f32", "F32", "float32", 4};
}

}  // namespace rodimus
