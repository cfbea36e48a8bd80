// Host side of the attention kernels: sizes as the kernels want them, the instance for them, and
// splits of the keys.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/ska/ska_tiles.cuh"
#include "kernels/ska.h"

namespace rodimus::cuda::ska {

inline constexpr int64_t kMaxDim = 256;
// Wherever all keys are seen a window of this many is as good; sums with positions fit an int.
inline constexpr int64_t kMaxKeys = int64_t{1} << 30;

template <class Int>
__host__ __device__ constexpr Int up(Int n, Int step) {  // pieces of `step` that hold n
  return (n + step - 1) / step;
}

// `arrays`: all that are read and written in rows of D elements.
template <class T>
Shape shape_of(const SkaDims& dims, std::initializer_list<const void*> arrays) {
  CHECK(dims.D <= kMaxDim, "ska: D = ", dims.D, ", the GPU kernels hold heads of up to ", kMaxDim);
  CHECK(dims.Tk <= kMaxKeys, "ska: Tk = ", dims.Tk, ", expected at most ", kMaxKeys);
  bool vectors = dims.D * static_cast<int64_t>(sizeof(T)) % 16 == 0;
  for (const void* array : arrays)
    vectors = vectors && reinterpret_cast<uintptr_t>(array) % 16 == 0;
  const int64_t left = dims.left < 0 ? dims.Tk : std::min(dims.left, dims.Tk);
  return {narrow<int>(dims.T),  narrow<int>(dims.Tk), narrow<int>(dims.H), narrow<int>(dims.Hk),
          narrow<int>(dims.Hv), narrow<int>(dims.D),  narrow<int>(left),   vectors};
}

// f(std::integral_constant<int, Dim>) for the narrowest tile that holds rows of D.
template <class F>
void with_dim(int64_t D, F&& f) {
  if (D <= 64) return f(std::integral_constant<int, 64>{});
  if (D <= 128) return f(std::integral_constant<int, 128>{});
  return f(std::integral_constant<int, 256>{});
}

// Into how many pieces the keys are cut so that `blocks` blocks become one for each multiprocessor;
// no more than `most`, nor than combine_splits takes.
int splits_for(int sm_count, int64_t blocks, int64_t most);

// o (B,T,H,D) and lse (B,H,T) over all keys, from those over each piece: split_o (splits,B,T,H,D),
// split_lse (splits,B,H,T) as logarithms to base 2, -inf where a query sees no key of the piece.
template <class T>
void combine_splits(Cuda& gpu, T* o, float* lse, const float* split_o, const float* split_lse,
                    int splits, int64_t B, const Shape& shape);

}  // namespace rodimus::cuda::ska
