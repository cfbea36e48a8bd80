// See planted.h. Each fault is one `if constexpr`, so a kernel and its faulty twins stay side by
// side. Kernels and launches obey the rules of kernels/cuda.
#include "tests/simt/planted.h"

#include "kernels/cuda/dev.cuh"

namespace rodimus::planted {
namespace {

using namespace cuda;

template <Bug bug>
__device__ __forceinline__ float warp_sum(float value) {
  if (bug == Bug::partial_shuffle && (threadIdx.x & 31) >= 16) return value;
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, lanes);
  }
  return value;
}

template <Bug bug, int kThreads>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(const bf16* __restrict__ x, const float* __restrict__ w, bf16* __restrict__ y,
                    float* __restrict__ rstd, int dim) {
  SHARED_ARRAY(float, partial, kThreads / 32);
  const int row = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const bf16* x_row = x + static_cast<int64_t>(row) * dim;
  float sum = 0.0f;
  const int end = bug == Bug::past_global_end ? dim + 1 : dim;
  for (int i = thread * 8; i < end; i += kThreads * 8) {
    const uint4 eight = ptx::ldg128(x_row + i);
    const uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (const uint32_t pair : pairs) {
      sum += dev::low_float(pair) * dev::low_float(pair);
      sum += dev::high_float(pair) * dev::high_float(pair);
    }
  }
  sum = warp_sum<bug>(sum);
  const int warp = thread / 32;
  if (thread % 32 == 0 && !(bug == Bug::unwritten_shared && warp == 0)) {
    partial[bug == Bug::past_shared_end ? warp + 1 : warp] = sum;
  }
  if constexpr (bug == Bug::barrier_in_branch) {
    if (thread < kThreads / 2) __syncthreads();
  } else if constexpr (bug == Bug::barrier_in_each_arm) {
    if (thread % 2 == 0) {
      __syncthreads();  // planted
    } else {
      __syncthreads();  // planted
    }
  } else if constexpr (bug != Bug::missing_barrier) {
    __syncthreads();  // all of partial[] is there
  }
  sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) sum += partial[i];
  const float scale = rsqrtf(sum / static_cast<float>(dim));
  if constexpr (bug == Bug::two_blocks_one_word) {
    if (thread == 0) rstd[row / 2] = scale;
  } else {
    if (thread == 0) rstd[row] = scale;
  }
  for (int i = thread; i < dim; i += kThreads) {
    y[static_cast<int64_t>(row) * dim + i] =
        dev::from_float<bf16>(dev::to_float(x_row[i]) * scale * w[i]);
  }
}

__global__ void __launch_bounds__(1024) shared_kernel(float* out) {
  SHARED_ARRAY(float, one, 32);
  SHARED_ARRAY(float, other, 4);
  one[threadIdx.x % 32] = other[threadIdx.x % 4] = 1;
  *out = one[threadIdx.x % 32];
}

__device__ float* hidden_shared() {
  SHARED_ARRAY(float, array, 32);
  return array;
}
__global__ void __launch_bounds__(32) hidden_shared_kernel(float* out) {
  float* const array = hidden_shared();
  array[threadIdx.x] = 1;
  out[threadIdx.x] = array[threadIdx.x];
}

template <Bug bug>
__global__ void __launch_bounds__(32) transpose_kernel(const float* in, float* out) {
  SHARED_ARRAY(float, tile, 32 * 33);  // one column more: no two lanes of a column share a bank
  const int lane = static_cast<int>(threadIdx.x);
  for (int row = 0; row < 32; ++row) tile[row * 33 + lane] = in[row * 32 + lane];
  if constexpr (bug == Bug::missing_syncwarp) {
    (void)__shfl_sync(0xffffffffu, lane, 0);
  } else {
    __syncwarp();  // the other lanes' rows are there
  }
  for (int row = 0; row < 32; ++row) out[row * 32 + lane] = tile[lane * 33 + row];
}

// A tile of 64 x 64 for each block, 32 x 32 for each of its four warps; 32 of k a stage.
constexpr int kTile = 64, kDepth = 32, kStages = 3, kGemmThreads = 128;
constexpr int kStageBytes = kTile * kDepth * static_cast<int>(sizeof(bf16));
constexpr int kGemmShared = 2 * kStages * kStageBytes;

// Offset of 16 bytes: rows of 64 bytes, chunks permuted so that 8 rows of a column fill all banks.
__device__ __forceinline__ uint32_t chunk_offset(int row, int chunk) {
  return static_cast<uint32_t>(row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4));
}

template <Bug bug>
__device__ __forceinline__ void load_tile(uint32_t shared, const bf16* source, int first_row,
                                          int rows, int first_k, int k) {
#pragma unroll
  for (int i = 0; i < kTile * 4 / kGemmThreads; ++i) {
    const int index = static_cast<int>(threadIdx.x) + i * kGemmThreads;
    const int row = first_row + index / 4, column = first_k + index % 4 * 8;
    const bool inside = (row < rows || bug == Bug::unguarded_copy) && column < k;
    const bf16* from = inside ? source + static_cast<int64_t>(row) * k + column : source;
    ptx::cp_async16(shared + chunk_offset(index / 4, index % 4), from, inside ? 16 : 0);
  }
}

template <Bug bug>
__global__ void __launch_bounds__(kGemmThreads)
    gemm_kernel(const bf16* __restrict__ a, const bf16* __restrict__ b, bf16* __restrict__ c, int m,
                int n, int k) {
  DYN_SHARED(shared);
  const uint32_t a_tiles = ptx::smem_u32(shared), b_tiles = a_tiles + kStages * kStageBytes;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  const int first_row = static_cast<int>(blockIdx.y) * kTile;
  const int first_column = static_cast<int>(blockIdx.x) * kTile;
  const int steps = (k + kDepth - 1) / kDepth;
  auto prefetch = [&](int step) {
    if (step >= steps) return;
    const uint32_t stage = static_cast<uint32_t>(step % kStages * kStageBytes);
    load_tile<bug>(a_tiles + stage, a, first_row, m, step * kDepth, k);
    load_tile<Bug::none>(b_tiles + stage, b, first_column, n, step * kDepth, k);
  };
  float sum[2][4][4] = {};
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) {
    prefetch(step);
    ptx::cp_commit();
  }
  for (int step = 0; step < steps; ++step) {
    ptx::cp_wait<bug == Bug::short_wait ? kStages - 1 : kStages - 2>();
    if constexpr (bug == Bug::early_prefetch) prefetch(step + kStages - 1);
    if constexpr (bug != Bug::missing_tile_barrier) {
      __syncthreads();  // all copies of this stage are there, and nobody reads the next one's place
    }
    if constexpr (bug != Bug::early_prefetch) prefetch(step + kStages - 1);
    ptx::cp_commit();
    const uint32_t stage = static_cast<uint32_t>(step % kStages * kStageBytes);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t a_part[2][4], b_part[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        ptx::ldsm_x4(
            a_part[i],
            a_tiles + stage + chunk_offset(warp_row + i * 16 + lane % 16, half * 2 + lane / 16));
        ptx::ldsm_x4(b_part[i], b_tiles + stage +
                                    chunk_offset(warp_column + i * 16 + lane % 8 + lane / 16 * 8,
                                                 half * 2 + lane / 8 % 2));
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          ptx::mma_bf16(sum[i][j], a_part[i], b_part[j / 2][j % 2 * 2],
                        b_part[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row + warp_row + i * 16 + lane / 4 + half * 8;
        const int column = first_column + warp_column + j * 8 + lane % 4 * 2;
        if (row < m && column < n) {
          ptx::stg32(c + static_cast<int64_t>(row) * n + column,
                     dev::pack_bf16(sum[i][j][half * 2], sum[i][j][half * 2 + 1]));
        }
      }
    }
  }
}

template <Bug bug>
__global__ void __launch_bounds__(32)
    sum_products_kernel(const bf16* a, const bf16* b, float* sums, int steps) {
  float sum[4] = {};
  for (int step = 0; step < steps; ++step) {
    const float x = dev::to_float(a[step]), y = dev::to_float(b[step]);
    const uint32_t left = dev::pack_bf16(x, x), right = dev::pack_bf16(y, y);
    if constexpr (bug == Bug::long_tensor_sum) {
      ptx::mma_bf16(sum, {left, left, left, left}, right, right);
    } else {
      float products[4] = {};
      ptx::mma_bf16(products, {left, left, left, left}, right, right);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] += products[i];
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[threadIdx.x * 4 + i] = sum[i];
}

__global__ void copy_floats_kernel(const float* in, float* out) {
  out[threadIdx.x] = in[threadIdx.x];
}
__global__ void copy_vectors_kernel(const float* in, float* out) {
  ptx::stg128(out + threadIdx.x * 4, ptx::ldg128(in + threadIdx.x * 4));
}

template <Bug bug>
cudaError_t launch_rms_norm(const bf16* x, const float* w, bf16* y, float* rstd, int rows, int dim,
                            cudaStream_t stream) {
  return dev::launch(rows, 128, 0, stream, rms_norm_kernel<bug, 128>, x, w, y, rstd, dim);
}
template <Bug bug>
cudaError_t launch_gemm(const bf16* a, const bf16* b, bf16* c, int m, int n, int k,
                        cudaStream_t stream) {
  const dim3 grid((n + kTile - 1) / kTile, (m + kTile - 1) / kTile);
  return dev::launch(grid, kGemmThreads, kGemmShared, stream, gemm_kernel<bug>, a, b, c, m, n, k);
}

}  // namespace

cudaError_t rms_norm(Bug bug, const bf16* x, const float* w, bf16* y, float* rstd, int rows,
                     int dim, cudaStream_t stream) {
  switch (bug) {
#define CASE(name) \
  case Bug::name:  \
    return launch_rms_norm<Bug::name>(x, w, y, rstd, rows, dim, stream);
    CASE(none)
    CASE(missing_barrier)
    CASE(barrier_in_branch)
    CASE(barrier_in_each_arm)
    CASE(past_global_end)
    CASE(past_shared_end)
    CASE(unwritten_shared)
    CASE(partial_shuffle)
    CASE(two_blocks_one_word)
#undef CASE
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t transpose(Bug bug, const float* in, float* out, cudaStream_t stream) {
  switch (bug) {
    case Bug::none:
      return dev::launch(1, 32, 0, stream, transpose_kernel<Bug::none>, in, out);
    case Bug::missing_syncwarp:
      return dev::launch(1, 32, 0, stream, transpose_kernel<Bug::missing_syncwarp>, in, out);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t gemm(Bug bug, const bf16* a, const bf16* b, bf16* c, int m, int n, int k,
                 cudaStream_t stream) {
  switch (bug) {
#define CASE(name) \
  case Bug::name:  \
    return launch_gemm<Bug::name>(a, b, c, m, n, k, stream);
    CASE(none)
    CASE(short_wait)
    CASE(missing_tile_barrier)
    CASE(unguarded_copy)
    CASE(early_prefetch)
#undef CASE
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t sum_products(Bug bug, const bf16* a, const bf16* b, float* sums, int steps,
                         cudaStream_t stream) {
  switch (bug) {
    case Bug::none:
      return dev::launch(1, 32, 0, stream, sum_products_kernel<Bug::none>, a, b, sums, steps);
    case Bug::long_tensor_sum:
      return dev::launch(1, 32, 0, stream, sum_products_kernel<Bug::long_tensor_sum>, a, b, sums,
                         steps);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t copy_floats(const float* in, float* out, int n, cudaStream_t stream) {
  return dev::launch(1, n, 0, stream, copy_floats_kernel, in, out);
}
cudaError_t copy_vectors(const float* in, float* out, int vectors, cudaStream_t stream) {
  return dev::launch(1, vectors, 0, stream, copy_vectors_kernel, in, out);
}
float read_on_host(const float* device_pointer) { return *device_pointer; }

cudaError_t use_shared(OptIn opt_in, dim3 grid, dim3 block, size_t dynamic, float* out) {
  if (opt_in == OptIn::as_launch_does)
    return dev::launch(grid, block, dynamic, nullptr, shared_kernel, out);
  if (opt_in == OptIn::by_dynamic_part && dynamic > (48 << 10)) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(shared_kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, int(dynamic));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic;
  return simt::launch(config, shared_kernel, out);
}
cudaError_t use_hidden_shared(float* out) {
  return dev::launch(1, 32, 0, nullptr, hidden_shared_kernel, out);
}

}  // namespace rodimus::planted
