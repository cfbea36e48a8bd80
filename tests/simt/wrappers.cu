// One kernel for each wrapper of ptx.cuh. fragment_test.cpp runs them on the emulator against the
// tables of the PTX ISA; ptx_test.py compares what nvcc makes of them with what each should emit,
// so they do nothing else: load the operands, call the wrapper, store the result.
#include "tests/simt/wrappers.h"

#include "kernels/cuda/dev.cuh"

namespace rodimus::wrappers {
namespace {

using namespace cuda;

// Element i of this lane's `count` elements.
__device__ __forceinline__ int64_t at(int count, int i) {
  return static_cast<int64_t>(threadIdx.x) * count + i;
}

template <int kCount, class T>
__device__ __forceinline__ void load(T (&into)[kCount], const T* from) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) into[i] = from[at(kCount, i)];
}
template <int kCount, class T>
__device__ __forceinline__ void store(T* to, const T (&from)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[at(kCount, i)] = from[i];
}

#define MMA_PROBE(wrapper)                                              \
  __global__ void __launch_bounds__(32)                                 \
      probe_##wrapper(float* d, const uint32_t* a, const uint32_t* b) { \
    float sum[4];                                                       \
    uint32_t a_part[4], b_part[2];                                      \
    load(sum, d);                                                       \
    load(a_part, a);                                                    \
    load(b_part, b);                                                    \
    ptx::wrapper(sum, a_part, b_part[0], b_part[1]);                    \
    store(d, sum);                                                      \
  }
MMA_PROBE(mma_bf16)
MMA_PROBE(mma_tf32)
#undef MMA_PROBE

// The tile comes from `in`, the lanes' offsets into it from `offsets`.
#define LDMATRIX_PROBE(wrapper, kMatrices)                                                \
  __global__ void __launch_bounds__(32)                                                   \
      probe_##wrapper(uint32_t* out, const uint32_t* in, const uint32_t* offsets) {       \
    SHARED_ARRAY(uint32_t, tile, kTileWords);                                             \
    for (int i = static_cast<int>(threadIdx.x); i < kTileWords; i += 32) tile[i] = in[i]; \
    __syncwarp();                                                                         \
    uint32_t result[kMatrices];                                                           \
    ptx::wrapper(result, ptx::smem_u32(tile) + offsets[threadIdx.x]);                     \
    store(out, result);                                                                   \
  }
LDMATRIX_PROBE(ldsm_x4, 4)
LDMATRIX_PROBE(ldsm_x4_t, 4)
LDMATRIX_PROBE(ldsm_x2, 2)
LDMATRIX_PROBE(ldsm_x2_t, 2)
#undef LDMATRIX_PROBE

// Copies what `bytes` says of each lane's 16 (8, 4) bytes, through the wrapper and out again.
#define COPY_PROBE(wrapper, kBytes)                                                            \
  __global__ void __launch_bounds__(32)                                                        \
      probe_##wrapper(uint32_t* out, const uint32_t* in, const uint32_t* bytes) {              \
    constexpr int kWords = kBytes / 4;                                                         \
    SHARED_ARRAY(uint32_t, tile, 32 * kWords);                                                 \
    ptx::wrapper(ptx::smem_u32(tile + at(kWords, 0)), in + at(kWords, 0), bytes[threadIdx.x]); \
    ptx::cp_commit();                                                                          \
    ptx::cp_wait<0>();                                                                         \
    for (int i = 0; i < kWords; ++i) out[at(kWords, i)] = tile[at(kWords, i)];                 \
  }
COPY_PROBE(cp_async16, 16)
COPY_PROBE(cp_async8, 8)
COPY_PROBE(cp_async4, 4)
#undef COPY_PROBE

// Two groups in flight: the older one is waited for first.
__global__ void __launch_bounds__(32) probe_cp_groups(uint32_t* out, const uint32_t* in) {
  SHARED_ARRAY(uint32_t, tile, 64);
  for (int group = 0; group < 2; ++group) {
    ptx::cp_async4(ptx::smem_u32(tile + at(2, group)), in + at(2, group));
    ptx::cp_commit();
  }
  ptx::cp_wait<1>();
  out[at(2, 0)] = tile[at(2, 0)];
  ptx::cp_wait<0>();
  out[at(2, 1)] = tile[at(2, 1)];
}

#define VECTOR_PROBE(load_wrapper, store_wrapper, type)                         \
  __global__ void __launch_bounds__(32)                                         \
      probe_##load_wrapper##_##store_wrapper(type* out, const type* in) {       \
    ptx::store_wrapper(out + threadIdx.x, ptx::load_wrapper(in + threadIdx.x)); \
  }
VECTOR_PROBE(ldg128, stg128, uint4)
VECTOR_PROBE(ldg64, stg64, uint2)
VECTOR_PROBE(ldg32, stg32, uint32_t)
#undef VECTOR_PROBE

// Through shared memory; the lane's own bytes, so that no barrier is needed.
#define SHARED_PROBE(load_wrapper, store_wrapper, type)                   \
  __global__ void __launch_bounds__(32)                                   \
      probe_##load_wrapper##_##store_wrapper(type* out, const type* in) { \
    SHARED_ARRAY(type, tile, 32);                                         \
    const uint32_t offset = ptx::smem_u32(tile + threadIdx.x);            \
    ptx::store_wrapper(offset, in[threadIdx.x]);                          \
    out[threadIdx.x] = ptx::load_wrapper(offset);                         \
  }
SHARED_PROBE(lds128, sts128, uint4)
SHARED_PROBE(lds64, sts64, uint2)
SHARED_PROBE(lds32, sts32, uint32_t)
#undef SHARED_PROBE

#define FUNCTION_PROBE(wrapper, result)                                              \
  __global__ void __launch_bounds__(32) probe_##wrapper(result* y, const float* x) { \
    y[threadIdx.x] = ptx::wrapper(x[threadIdx.x]);                                   \
  }
FUNCTION_PROBE(ex2, float)
FUNCTION_PROBE(lg2, float)
FUNCTION_PROBE(rcp, float)
FUNCTION_PROBE(to_tf32, uint32_t)
#undef FUNCTION_PROBE

// The second pair of warps hands its numbers to the first, twice, while warp 0 and 1 also have a
// barrier of their own.
__global__ void __launch_bounds__(128) probe_bar_sync(int* out, const int* in) {
  SHARED_ARRAY(int, exchange, 64);
  const int thread = static_cast<int>(threadIdx.x);
  for (int round = 0; round < 2; ++round) {
    if (thread >= 64) {
      if (round > 0) ptx::bar_sync(2, 128);  // the readers are done with the last round
      exchange[thread - 64] = in[round * 64 + thread - 64];
      ptx::bar_sync(1, 128);
    } else {
      ptx::bar_sync(1, 128);
      out[round * 64 + thread] = exchange[63 - thread];
      if (round == 0) ptx::bar_sync(2, 128);
    }
  }
}

}  // namespace

cudaError_t mma_bf16(float* d, const uint32_t* a, const uint32_t* b) {
  return dev::launch(1, 32, 0, nullptr, probe_mma_bf16, d, a, b);
}
cudaError_t mma_tf32(float* d, const uint32_t* a, const uint32_t* b) {
  return dev::launch(1, 32, 0, nullptr, probe_mma_tf32, d, a, b);
}
cudaError_t ldmatrix(int matrices, bool transposed, uint32_t* out, const uint32_t* in,
                     const uint32_t* offsets) {
  const auto kernel = matrices == 4 ? (transposed ? probe_ldsm_x4_t : probe_ldsm_x4)
                                    : (transposed ? probe_ldsm_x2_t : probe_ldsm_x2);
  return dev::launch(1, 32, 0, nullptr, kernel, out, in, offsets);
}
cudaError_t cp_async(int bytes, uint32_t* out, const uint32_t* in, const uint32_t* counts) {
  const auto kernel = bytes == 16  ? probe_cp_async16
                      : bytes == 8 ? probe_cp_async8
                                   : probe_cp_async4;
  return dev::launch(1, 32, 0, nullptr, kernel, out, in, counts);
}
cudaError_t cp_groups(uint32_t* out, const uint32_t* in) {
  return dev::launch(1, 32, 0, nullptr, probe_cp_groups, out, in);
}
cudaError_t copy_through_registers(uint32_t* out, const uint32_t* in) {
  const cudaError_t error =
      dev::launch(1, 32, 0, nullptr, probe_ldg128_stg128, reinterpret_cast<uint4*>(out),
                  reinterpret_cast<const uint4*>(in));
  if (error != cudaSuccess) return error;
  const cudaError_t second =
      dev::launch(1, 32, 0, nullptr, probe_ldg64_stg64, reinterpret_cast<uint2*>(out + 128),
                  reinterpret_cast<const uint2*>(in + 128));
  if (second != cudaSuccess) return second;
  return dev::launch(1, 32, 0, nullptr, probe_ldg32_stg32, out + 192, in + 192);
}
cudaError_t copy_through_shared(uint32_t* out, const uint32_t* in) {
  const cudaError_t error =
      dev::launch(1, 32, 0, nullptr, probe_lds128_sts128, reinterpret_cast<uint4*>(out),
                  reinterpret_cast<const uint4*>(in));
  if (error != cudaSuccess) return error;
  const cudaError_t second =
      dev::launch(1, 32, 0, nullptr, probe_lds64_sts64, reinterpret_cast<uint2*>(out + 128),
                  reinterpret_cast<const uint2*>(in + 128));
  if (second != cudaSuccess) return second;
  return dev::launch(1, 32, 0, nullptr, probe_lds32_sts32, out + 192, in + 192);
}
cudaError_t function(Function which, float* y, const float* x) {
  const auto kernel = which == Function::ex2   ? probe_ex2
                      : which == Function::lg2 ? probe_lg2
                                               : probe_rcp;
  return dev::launch(1, 32, 0, nullptr, kernel, y, x);
}
cudaError_t to_tf32(uint32_t* y, const float* x) {
  return dev::launch(1, 32, 0, nullptr, probe_to_tf32, y, x);
}
cudaError_t bar_sync(int* out, const int* in) {
  return dev::launch(1, 128, 0, nullptr, probe_bar_sync, out, in);
}

}  // namespace rodimus::wrappers
