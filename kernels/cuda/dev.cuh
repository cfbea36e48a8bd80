// The one include of every kernel source (.cu): the CUDA vocabulary, the launch function, shared
// memory, and the project's bf16 on the device. The same source compiles with nvcc and, for tests,
// as C++ against the emulator (RODIMUS_SIMT; see tests/simt/README.md), so a source uses
//   dev::launch(grid, block, shared_bytes, stream, kernel, args...)  instead of <<<...>>>,
//   SHARED_ARRAY(T, name, n) and DYN_SHARED(name)                    instead of __shared__,
//   the wrappers of ptx.cuh                                          instead of asm.
#pragma once

#ifdef RODIMUS_SIMT
#include <simt/device.h>  // the emulator: its folder is on the include path of such builds only
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#endif

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/ptx.cuh"
#include "kernels/dtype.h"

#ifndef RODIMUS_SIMT
// Bytes, not T: a __shared__ object must not have a constructor, and bf16 has one.
#define SHARED_ARRAY(T, name, n)                                                                  \
  __shared__ __align__(alignof(T) < 16 ? 16                                                       \
                                       : alignof(T)) unsigned char name##_bytes[sizeof(T) * (n)]; \
  T(&name)[n] = *reinterpret_cast<T(*)[n]>(name##_bytes)
// One array for the whole launch: its size is the launch's shared_bytes.
#define DYN_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#endif

namespace rodimus::cuda::dev {

// kernel<<<grid, block, shared_bytes, stream>>>(args...), each argument converted to the kernel's
// parameter type. Returns the error of the launch itself; errors of the run come with a later call
// on the stream.
template <class... Parameters, class... Args>
cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   void (*kernel)(Parameters...), Args&&... args) {
  static_assert(sizeof...(Parameters) == sizeof...(Args));
  // A block gets 48 KiB unless the kernel asks for more, and static arrays count towards them. We
  // always ask: a bound that leaves room for the static arrays would have to know their size.
  if (shared_bytes > 0) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
#ifdef RODIMUS_SIMT
  return simt::launch(config, kernel, static_cast<Parameters>(args)...);
#else
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(args)...);
#endif
}

// ---- Storage types: load, compute in f32, round once on store -----------------------------------

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}

// Round to nearest even.
template <class T>
__device__ __forceinline__ T from_float(float x) {
  if constexpr (std::is_same_v<T, bf16>) {
    bf16 result;
    result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
    return result;
  } else {
    return static_cast<T>(x);
  }
}

// Two bf16 in one register, `low` in the lower half: what mma fragments and vector stores hold.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return static_cast<uint32_t>(__bfloat16_as_ushort(pair.x)) |
         static_cast<uint32_t>(__bfloat16_as_ushort(pair.y)) << 16;
}
__device__ __forceinline__ float low_float(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_float(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

// The same bytes as CUDA's own type, for its functions.
__device__ __forceinline__ __nv_bfloat16 cuda_bf16(bf16 x) { return __ushort_as_bfloat16(x.bits); }
inline const __nv_bfloat16* cuda_bf16(const bf16* x) {
  return reinterpret_cast<const __nv_bfloat16*>(x);
}
inline __nv_bfloat16* cuda_bf16(bf16* x) { return reinterpret_cast<__nv_bfloat16*>(x); }

}  // namespace rodimus::cuda::dev
