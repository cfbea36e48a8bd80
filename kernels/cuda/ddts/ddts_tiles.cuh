// Matrix pieces of the DDTS kernels: images of small matrices in shared memory, 16x16 fragments of
// them in registers, and products of fragments on the tensor cores.
//
// One code serves both element types. bf16: a fragment is one bf16 mma operand. f32: a fragment is
// three bf16 planes whose sum is the f32 value to the last bit, and a product takes the six pairs
// of planes that matter (what is dropped is below 2^-26 of the product): f32 accuracy without a
// second set of kernels.
#pragma once

#include <type_traits>

#include "kernels/cuda/dev.cuh"

namespace rodimus::cuda::ddts {

inline constexpr int kChunk = 64;  // tokens
inline constexpr int kSub = 16;    // tokens of a sub-chunk, rows and columns of a fragment
inline constexpr int kSubs = kChunk / kSub;
inline constexpr int kSlice = 64;  // keys that are worked on together

template <class T>
inline constexpr bool kIsF32 = std::is_same_v<T, float>;
// Sub-chunks whose products are unrolled together: in f32 all four need more registers than there
// are.
template <class T>
inline constexpr int kUnrolledSubs = kIsF32<T> ? 1 : kSubs;
template <class T>
inline constexpr int kVector = 16 / static_cast<int>(sizeof(T));  // elements of a 16-byte access

// Where element (row, col) of an image lies; kCols a power of two >= 16, rows a multiple of 8.
// bf16: 8x8 tiles of 128 contiguous bytes, so that ldmatrix never meets a bank conflict; rows of a
// tile are permuted so that a warp that fills rows from global memory meets none either. f32: rows,
// permuted by eights. A 16-byte vector of a row stays together in both.
template <class T, int kCols>
__device__ __forceinline__ int image_at(int row, int col) {
  if constexpr (kIsF32<T>) {
    return row * kCols + (col ^ ((row & 3) * 8 & (kCols - 1)));
  } else {
    constexpr int kSpread = kCols >= 64 ? 1 : 64 / kCols;
    const int tile = (row >> 3) * (kCols / 8) + (col >> 3);
    return tile * 64 + (((row & 7) ^ ((col >> 3) * kSpread & 7)) << 3) + (col & 7);
  }
}

// Vectors of floats from shared memory.
__device__ __forceinline__ float2 load_float2(const float* x) {
  const uint2 u = ptx::lds64(ptx::smem_u32(x));
  return make_float2(__uint_as_float(u.x), __uint_as_float(u.y));
}
__device__ __forceinline__ float4 load_float4(const float* x) {
  const uint4 u = ptx::lds128(ptx::smem_u32(x));
  return make_float4(__uint_as_float(u.x), __uint_as_float(u.y), __uint_as_float(u.z),
                     __uint_as_float(u.w));
}

// A 16x16 matrix over a warp. With g = lane / 4, q = lane % 4, register i holds columns c, c + 1 of
// row r: r = g + 8 (i & 1), c = 2 q + 8 (i >> 1). This is the A operand of m16n8k16, and
// (register n, register n + 2) is the B operand of the transposed rows 8n .. 8n + 7.
template <class T>
struct Frag {
  static constexpr int kPlanes = kIsF32<T> ? 3 : 1;
  uint32_t r[kPlanes][4];

  __device__ __forceinline__ void set(int i, float first, float second) {
#pragma unroll
    for (int p = 0; p < kPlanes; ++p) {
      r[p][i] = dev::pack_bf16(first, second);
      first -= dev::low_float(r[p][i]);
      second -= dev::high_float(r[p][i]);
    }
  }
  __device__ __forceinline__ float first(int i) const {
    float sum = 0.0f;
#pragma unroll
    for (int p = kPlanes - 1; p >= 0; --p) sum += dev::low_float(r[p][i]);
    return sum;
  }
  __device__ __forceinline__ float second(int i) const {
    float sum = 0.0f;
#pragma unroll
    for (int p = kPlanes - 1; p >= 0; --p) sum += dev::high_float(r[p][i]);
    return sum;
  }
};

// A 16x16 matrix of sums, as two 16x8 accumulators of mma: half h holds columns 8 h ..; elements
// 0, 1 are columns 2q, 2q + 1 of row g, elements 2, 3 those of row g + 8.
struct Sums {
  float half[2][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 8; ++i) half[i >> 2][i & 3] = 0.0f;
  }
};

template <class T>
__device__ __forceinline__ Frag<T> to_frag(const Sums& s) {
  Frag<T> f;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    f.set(i, s.half[i >> 1][(i & 1) * 2], s.half[i >> 1][(i & 1) * 2 + 1]);
  return f;
}
template <class T>
__device__ __forceinline__ Sums to_sums(const Frag<T>& f) {
  Sums s;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    s.half[i >> 1][(i & 1) * 2] = f.first(i);
    s.half[i >> 1][(i & 1) * 2 + 1] = f.second(i);
  }
  return s;
}

// c += a b^T. Tensor cores cut their sums towards zero, so an accumulator drifts that way, by about
// half a unit of its last place (2^-24) for each product. In f32 the products of this call start
// from zero, small ones first, and their sum is added with rounding: 8 additions for 12 mma. In
// bf16 a state drifts by T / 16 steps * 2^-24, at most, where no decay makes it forget: less than
// the rounding of its operands (2^-9) up to T = 2^19.
template <class T>
__device__ __forceinline__ void multiply(Sums& c, const Frag<T>& a, const Frag<T>& b) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sums[4] = {};
    float(&into)[4] = kIsF32<T> ? sums : c.half[h];
#pragma unroll
    for (int i = Frag<T>::kPlanes - 1; i >= 0; --i) {
#pragma unroll
      for (int j = Frag<T>::kPlanes - 1 - i; j >= 0; --j)
        ptx::mma_bf16(into, a.r[i], b.r[j][h], b.r[j][h + 2]);
    }
    if constexpr (kIsF32<T>) {
#pragma unroll
      for (int e = 0; e < 4; ++e) c.half[h][e] += sums[e];
    }
  }
}

// The 16x16 part of an image at (row, col), and its transpose.
template <class T, int kCols>
__device__ __forceinline__ Frag<T> load_frag(const T* image, int row, int col) {
  const int lane = threadIdx.x & 31;
  Frag<T> f;
  if constexpr (kIsF32<T>) {
    const int g = lane >> 2, q = lane & 3;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = image_at<T, kCols>(row + g + 8 * (i & 1), col + 2 * q + 8 * (i >> 1));
      const float2 x = load_float2(image + at);
      f.set(i, x.x, x.y);
    }
  } else {
    const int r = row + (lane & 15), c = col + (lane >> 4) * 8;
    ptx::ldsm_x4(f.r[0], ptx::smem_u32(image + image_at<T, kCols>(r, c)));
  }
  return f;
}
template <class T, int kCols>
__device__ __forceinline__ Frag<T> load_frag_transposed(const T* image, int row, int col) {
  const int lane = threadIdx.x & 31;
  Frag<T> f;
  if constexpr (kIsF32<T>) {
    const int g = lane >> 2, q = lane & 3;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = row + 2 * q + 8 * (i >> 1), c = col + g + 8 * (i & 1);
      f.set(i, image[image_at<T, kCols>(r, c)], image[image_at<T, kCols>(r + 1, c)]);
    }
  } else {
    const int r = row + (lane & 7) + (lane >> 4) * 8, c = col + (lane >> 3 & 1) * 8;
    ptx::ldsm_x4_t(f.r[0], ptx::smem_u32(image + image_at<T, kCols>(r, c)));
  }
  return f;
}

// `count` elements, a multiple of a vector, from global to shared memory by `threads` threads of
// which this is number `thread`; with `zeros` nothing is read, but `from` is valid all the same.
// Lands at the next wait.
template <class T>
__device__ __forceinline__ void copy_async(T* to, const T* from, int count, int thread, int threads,
                                           bool zeros = false) {
  for (int i = thread * kVector<T>; i < count; i += threads * kVector<T>)
    ptx::cp_async16(ptx::smem_u32(to + i), from + i, zeros ? 0 : 16);
}

// A (kChunk, kCols) image of the rows of x (rows, V) that begin at `from`, its columns being
// [column, column + kCols) of V; what lies outside is zero. `vectors`: all rows are aligned to 16
// bytes. Lands at the next wait.
template <class T, int kCols>
__device__ __forceinline__ void load_columns(T* image, const T* from, int rows, int column, int V,
                                             bool vectors, int thread, int threads) {
  constexpr int kRow = kCols / kVector<T>;
  if (vectors) {
    for (int i = thread; i < kChunk * kRow; i += threads) {
      const int t = i / kRow, j = i % kRow * kVector<T>;
      const bool inside = t < rows && column + j < V;
      ptx::cp_async16(ptx::smem_u32(image + image_at<T, kCols>(t, j)),
                      from + (inside ? static_cast<int64_t>(t) * V + column + j : 0),
                      inside ? 16 : 0);
    }
  } else {
    for (int i = thread; i < kChunk * kCols; i += threads) {
      const int t = i / kCols, j = i % kCols;
      image[image_at<T, kCols>(t, j)] = t < rows && column + j < V
                                            ? from[static_cast<int64_t>(t) * V + column + j]
                                            : dev::from_float<T>(0.0f);
    }
  }
}

}  // namespace rodimus::cuda::ddts
