// N neighbouring elements as floats, loaded and stored with the widest access: 16 bytes for 4
// floats or 8 bf16, 8 bytes for 4 bf16. N > 1 needs addresses that are multiples of the access;
// packs_fit() says whether they are. N = 1 is the same kernel for everything else.
#pragma once

#include "kernels/cuda/dev.cuh"
#include "kernels/dtype.h"

namespace rodimus::cuda {

template <int N>
struct Pack {
  float v[N];
};

template <int N>
__device__ __forceinline__ Pack<N> load(const float* p) {
  static_assert(N == 1 || N % 4 == 0);
  Pack<N> pack;
  if constexpr (N == 1) {
    pack.v[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const uint4 word = ptx::ldg128(p + i);
      pack.v[i] = __uint_as_float(word.x);
      pack.v[i + 1] = __uint_as_float(word.y);
      pack.v[i + 2] = __uint_as_float(word.z);
      pack.v[i + 3] = __uint_as_float(word.w);
    }
  }
  return pack;
}

template <int N>
__device__ __forceinline__ Pack<N> load(const bf16* p) {
  static_assert(N == 1 || N == 4 || N == 8);
  Pack<N> pack;
  if constexpr (N == 1) {
    pack.v[0] = dev::to_float(*p);
  } else if constexpr (N == 4) {
    const uint2 word = ptx::ldg64(p);
    pack.v[0] = dev::low_float(word.x);
    pack.v[1] = dev::high_float(word.x);
    pack.v[2] = dev::low_float(word.y);
    pack.v[3] = dev::high_float(word.y);
  } else {
    const uint4 word = ptx::ldg128(p);
    const uint32_t words[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pack.v[2 * i] = dev::low_float(words[i]);
      pack.v[2 * i + 1] = dev::high_float(words[i]);
    }
  }
  return pack;
}

template <int N>
__device__ __forceinline__ void store(float* p, const Pack<N>& pack) {
  if constexpr (N == 1) {
    *p = pack.v[0];
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      ptx::stg128(p + i,
                  make_uint4(__float_as_uint(pack.v[i]), __float_as_uint(pack.v[i + 1]),
                             __float_as_uint(pack.v[i + 2]), __float_as_uint(pack.v[i + 3])));
    }
  }
}

template <int N>
__device__ __forceinline__ void store(bf16* p, const Pack<N>& pack) {
  if constexpr (N == 1) {
    *p = dev::from_float<bf16>(pack.v[0]);
  } else if constexpr (N == 4) {
    ptx::stg64(
        p, make_uint2(dev::pack_bf16(pack.v[0], pack.v[1]), dev::pack_bf16(pack.v[2], pack.v[3])));
  } else {
    ptx::stg128(
        p, make_uint4(dev::pack_bf16(pack.v[0], pack.v[1]), dev::pack_bf16(pack.v[2], pack.v[3]),
                      dev::pack_bf16(pack.v[4], pack.v[5]), dev::pack_bf16(pack.v[6], pack.v[7])));
  }
}

// Whether rows of `dim` elements at these addresses (null counts as fitting) may be taken in packs
// of N.
template <int N, class... P>
bool packs_fit(int64_t dim, const P*... rows) {
  const auto fits = [](const auto* p) {
    constexpr size_t kAccess = N * sizeof(*p) < 16 ? N * sizeof(*p) : 16;
    return reinterpret_cast<uintptr_t>(p) % kAccess == 0;
  };
  return dim % N == 0 && (fits(rows) && ...);
}

// f(Lanes<N>{}) where packs fit, else f(Lanes<1>{}): picks the kernel.
template <int N>
struct Lanes {
  static constexpr int value = N;
};

}  // namespace rodimus::cuda
