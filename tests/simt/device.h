// What a kernel source sees instead of the CUDA compiler's built-ins when it is compiled as C++:
// kernels/cuda/dev.cuh includes this in builds that define RODIMUS_SIMT.
#pragma once

// The real headers give the types (and host versions of the bf16 conversions). They come before our
// macros, because they have members of the names gridDim, warpSize, ...
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <tuple>

#include "tests/simt/engine.h"

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __launch_bounds__
#undef __forceinline__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define SIMT_INTRINSIC inline __attribute__((always_inline))

// ---- Indices and shared memory -----------------------------------------------------------------

#define threadIdx (::simt::thread_index())
#define blockIdx (::simt::block_index)
extern dim3 blockDim,
    gridDim;  // objects, not macros: cudaLaunchConfig_t has members of these names
constexpr int warpSize = 32;

// symbols.cpp finds the sizes of a kernel's arrays by the name of the constant.
#define SHARED_ARRAY(T, name, n)                                        \
  static constexpr ::simt::SharedArray simt_shared_##name{              \
      sizeof(T[n]), alignof(T) < 16 ? size_t{16} : size_t{alignof(T)}}; \
  auto& name = *reinterpret_cast<T(*)[n]>(::simt::static_shared(&simt_shared_##name))
#define DYN_SHARED(name) unsigned char* name = ::simt::dynamic_shared()

// ---- Barriers and warp collectives -------------------------------------------------------------

SIMT_INTRINSIC void __syncthreads(simt::Where where = simt::Where::current()) {
  simt::barrier(0, -1, false, where);
}
SIMT_INTRINSIC int __syncthreads_count(int p, simt::Where where = simt::Where::current()) {
  return simt::barrier(0, -1, p != 0, where);
}
SIMT_INTRINSIC int __syncthreads_or(int p, simt::Where where = simt::Where::current()) {
  return simt::barrier(0, -1, p != 0, where) > 0;
}
SIMT_INTRINSIC int __syncthreads_and(int p, simt::Where where = simt::Where::current()) {
  return simt::barrier(0, -1, p == 0, where) == 0;
}
SIMT_INTRINSIC void __syncwarp(unsigned mask = simt::kWholeWarp,
                               simt::Where where = simt::Where::current()) {
  simt::collective(mask, simt::Op::syncwarp, nullptr, nullptr, where);
}

namespace simt {
template <class T>
T shuffle_value(unsigned mask, T value, Shuffle kind, int operand, int width, Where where) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
  constexpr size_t kWords = (sizeof(T) + 3) / 4;
  uint32_t words[kWords] = {};
  __builtin_memcpy(words, &value, sizeof value);
  for (uint32_t& word : words) word = shuffle(mask, word, kind, operand, width, where);
  __builtin_memcpy(static_cast<void*>(&value), words, sizeof value);
  return value;
}
}  // namespace simt
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
              simt::Where where = simt::Where::current()) {
  return simt::shuffle_value(mask, value, simt::Shuffle::index, lane, width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 simt::Where where = simt::Where::current()) {
  return simt::shuffle_value(mask, value, simt::Shuffle::up, int(delta), width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   simt::Where where = simt::Where::current()) {
  return simt::shuffle_value(mask, value, simt::Shuffle::down, int(delta), width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  simt::Where where = simt::Where::current()) {
  return simt::shuffle_value(mask, value, simt::Shuffle::butterfly, lanes, width, where);
}
inline unsigned __ballot_sync(unsigned mask, int p, simt::Where where = simt::Where::current()) {
  return simt::ballot(mask, p != 0, where);
}
inline int __any_sync(unsigned mask, int p, simt::Where where = simt::Where::current()) {
  return simt::ballot(mask, p != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int p, simt::Where where = simt::Where::current()) {
  return simt::ballot(mask, p != 0, where) == mask;
}
#define SIMT_REDUCE(name, kind)                                                             \
  template <class T>                                                                        \
  T name(unsigned mask, T value, simt::Where where = simt::Where::current()) {              \
    static_assert(std::is_integral_v<T> && sizeof(T) == 4);                                 \
    return T(simt::reduce(mask, uint32_t(value), simt::Reduction::kind, T(-1) < 0, where)); \
  }
SIMT_REDUCE(__reduce_add_sync, add)
SIMT_REDUCE(__reduce_min_sync, min)
SIMT_REDUCE(__reduce_max_sync, max)
SIMT_REDUCE(__reduce_and_sync, bit_and)
SIMT_REDUCE(__reduce_or_sync, bit_or)
SIMT_REDUCE(__reduce_xor_sync, bit_xor)
#undef SIMT_REDUCE
template <class T>
unsigned __match_any_sync(unsigned mask, T value, simt::Where where = simt::Where::current()) {
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  return simt::match_any(mask, bits, where);
}

// ---- Atomics -----------------------------------------------------------------------------------

namespace simt {
// f(old) -> new. Not instrumented: its load and store count as one atomic access.
template <class T, class F>
__attribute__((no_sanitize("thread"), noinline)) T atomic(T* pointer, F f, Where where) {
  on_access(pointer, sizeof(T), Access::load, {nullptr, &where}, true);
  const T old = *pointer;
  on_access(pointer, sizeof(T), Access::store, {nullptr, &where}, true);
  *pointer = f(old);
  return old;
}
}  // namespace simt
#define SIMT_ATOMIC(name, expression)                                                          \
  template <class T>                                                                           \
  SIMT_INTRINSIC T name(T* pointer, std::type_identity_t<T> value,                             \
                        simt::Where where = simt::Where::current()) {                          \
    return simt::atomic(                                                                       \
        pointer, [value](T old) __attribute__((no_sanitize("thread"))) { return expression; }, \
        where);                                                                                \
  }
SIMT_ATOMIC(atomicAdd, T(old + value))
SIMT_ATOMIC(atomicMax, old < value ? value : old)
SIMT_ATOMIC(atomicMin, value < old ? value : old)
SIMT_ATOMIC(atomicOr, T(old | value))
SIMT_ATOMIC(atomicExch, ((void)old, value))
#undef SIMT_ATOMIC
template <class T>
SIMT_INTRINSIC T atomicCAS(T* pointer, std::type_identity_t<T> expected,
                           std::type_identity_t<T> value,
                           simt::Where where = simt::Where::current()) {
  return simt::atomic(
      pointer, [ expected, value ](T old) __attribute__((no_sanitize("thread"))) {
        return old == expected ? value : old;
      },
      where);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- Vector accesses of ptx.cuh -----------------------------------------------------------------

namespace simt {
template <class T>
T load_value(const void* pointer, Where where) {
  T value;
  load_bytes(&value, pointer, sizeof value, where);
  return value;
}
template <class T>
void store_value(void* pointer, T value, Where where) {
  store_bytes(pointer, &value, sizeof value, where);
}
template <class T>
T load_shared(uint32_t offset, Where where) {
  const void* pointer = shared_at(offset, sizeof(T), "load", where);
  return pointer ? load_value<T>(pointer, where) : T{};
}
template <class T>
void store_shared(uint32_t offset, T value, Where where) {
  if (void* pointer = shared_at(offset, sizeof(T), "store", where)) {
    store_value(pointer, value, where);
  }
}
}  // namespace simt

// ---- Loads with a cache hint, arithmetic -------------------------------------------------------

template <class T>
SIMT_INTRINSIC T __ldg(const T* pointer) {
  return *pointer;
}
template <class T>
SIMT_INTRINSIC T __ldcs(const T* pointer) {
  return *pointer;
}
template <class T>
SIMT_INTRINSIC void __stcs(T* pointer, T value) {
  *pointer = value;
}

inline double sinpi(double x) { return std::sin(3.14159265358979323846 * std::remainder(x, 2.0)); }
inline double cospi(double x) { return std::cos(3.14159265358979323846 * std::remainder(x, 2.0)); }
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = float(sinpi(x));
  *cosine = float(cospi(x));
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t{a} * b) >> 32); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a < b ? b : a; }
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }

// ---- Launch ------------------------------------------------------------------------------------

namespace simt {

// What cudaLaunchKernelEx does with kernel(args...). Runs it for each thread of the grid, or hands
// it to enqueue_hook; with config.launch_only the launch is checked and recorded, no more.
template <class... Parameters>
cudaError_t launch(const cudaLaunchConfig_t& launch, void (*kernel)(Parameters...),
                   std::type_identity_t<Parameters>... args) {
  const auto* const address = reinterpret_cast<const void*>(kernel);
  if (const cudaError_t error = admit_launch(launch, address)) return error;
  if (config.launch_only) return cudaSuccess;
  auto run = [=, values = std::tuple<Parameters...>(args...)] {
    const std::function<void()> body = [&] { std::apply(kernel, values); };
    struct KernelMayReadArguments {
      const void* pointer;
      KernelMayReadArguments(const void* p, size_t bytes) : pointer(p) { allow_host(p, bytes); }
      ~KernelMayReadArguments() { forbid_host(pointer); }
    } arguments(&values, sizeof values), function(&kernel, sizeof kernel), call(&body, sizeof body);
    return run_grid(launch, body, address);
  };
  if (enqueue_hook) return enqueue_hook(launch.stream, [run] { run(); });
  return run();
}

}  // namespace simt
