// What the attention kernels share: tiles of rows in shared memory, the two products of a warp, and
// which keys a query sees. A warp owns 16 rows (queries or keys). Element type bf16 goes through
// mma.sync, f32 through FMA; both leave a 16 x 8 n tile of a product in the fragment of
// mma.m16n8k16: lane 4 g + q holds rows g and g + 8, columns 8 n + 2 q and the next:
// c[n] = {(g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1)}.
#pragma once

#include <cstdint>

#include "kernels/cuda/dev.cuh"
#include "kernels/dtype.h"

namespace rodimus::cuda::ska {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr unsigned kAllLanes = 0xffffffffu;

// Sizes as in SkaDims, but Tk is filled in and left is never negative: Tk stands for "no window".
struct Shape {
  int T, Tk, H, Hk, Hv, D, left;
  bool vectors;  // all rows start at multiples of 16 bytes
};

__device__ __forceinline__ int lane_id() { return static_cast<int>(threadIdx.x) & 31; }
__device__ __forceinline__ int warp_id() { return static_cast<int>(threadIdx.x) >> 5; }
__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }

// The keys that query i sees are first_key(i) .. last_key(i); both ends grow with i, because the
// documents of a sequence follow each other. `starts` is that of the batch entry, or null.
__device__ __forceinline__ int last_key(const Shape& shape, int i) {
  return i + shape.Tk - shape.T;
}
__device__ __forceinline__ int first_key(const Shape& shape, const int32_t* starts, int i) {
  const int first = max(last_key(shape, i) - shape.left, 0);
  return starts == nullptr ? first : max(first, starts[i]);
}

// Rows of Dim elements in shared memory, in chunks of 16 bytes. Chunks are permuted within the row
// such that one chunk of 8 consecutive rows covers all banks: chunk c of row r lies at c ^ r % 8.
template <class T, int Dim>
struct Tile {
  static constexpr int kChunk = 16 / static_cast<int>(sizeof(T)), kChunks = Dim / kChunk,
                       kRowBytes = Dim * static_cast<int>(sizeof(T));
  static_assert(kChunks >= 8 && (kChunks & (kChunks - 1)) == 0);
  uint32_t base;  // offset in shared memory, a multiple of 128

  __device__ __forceinline__ uint32_t at(int row, int chunk) const {
    return base + static_cast<uint32_t>(row * kRowBytes + ((chunk ^ (row & 7)) << 4));
  }
  // at(row + down, chunk + right) from at(row, chunk), if down is a multiple of 8 and chunk + right
  // = chunk | right: one instruction for constants.
  static __device__ __forceinline__ uint32_t move(uint32_t at, int down, int right) {
    return (at ^ static_cast<uint32_t>((right & 7) << 4)) +
           static_cast<uint32_t>(down * kRowBytes + ((right & ~7) << 4));
  }
  __device__ __forceinline__ Tile from(int row) const {  // a multiple of 8
    return {base + static_cast<uint32_t>(row * kRowBytes)};
  }

  // Starts copying rows 0 .. rows - 1 by threads 0 .. threads - 1; complete after cp_wait and a
  // barrier. source(r) is a row of D elements or null, which means zeros, as do columns D .. Dim;
  // `any` is a valid address.
  template <class Source>
  __device__ __forceinline__ void load(int rows, int thread, int threads, const Shape& shape,
                                       const T* any, Source source) const {
    if (shape.vectors) {
#pragma unroll 1
      for (int i = thread; i < rows * kChunks; i += threads) {
        const int row = i / kChunks, chunk = i % kChunks;
        const T* from = source(row);
        const bool inside = from != nullptr && chunk * kChunk < shape.D;
        ptx::cp_async16(at(row, chunk), inside ? from + chunk * kChunk : any, inside ? 16 : 0);
      }
      return;
    }
    constexpr int kWordsPerRow = kRowBytes / 4, kPerWord = 4 / static_cast<int>(sizeof(T));
#pragma unroll 1
    for (int i = thread; i < rows * kWordsPerRow; i += threads) {
      const int row = i / kWordsPerRow, word = i % kWordsPerRow;
      const T* from = source(row);
      uint32_t bits = 0;
#pragma unroll
      for (int e = 0; e < kPerWord; ++e) {
        const int column = word * kPerWord + e;
        if (from == nullptr || column >= shape.D) continue;
        if constexpr (sizeof(T) == 4) {
          bits = __float_as_uint(from[column]);
        } else {
          bits |= static_cast<uint32_t>(from[column].bits) << 16 * e;
        }
      }
      ptx::sts32(at(row, word / 4) + static_cast<uint32_t>(word % 4 * 4), bits);
    }
  }

  // Stores columns first .. first + Columns - 1 of rows 0 .. 15 by a warp; target(r) is a row of D
  // elements or null, which stores nothing.
  template <int Columns, class Target>
  __device__ __forceinline__ void store(int first, const Shape& shape, Target target) const {
    constexpr int kPerRow = Columns / kChunk, kPerWord = 4 / static_cast<int>(sizeof(T));
#pragma unroll 1
    for (int i = lane_id(); i < 16 * kPerRow; i += 32) {
      const int row = i / kPerRow, column = first + i % kPerRow * kChunk;
      T* const to = target(row);
      if (to == nullptr || column >= shape.D) continue;
      const uint32_t from = at(row, column / kChunk);
      if (shape.vectors) {
        ptx::stg128(to + column, ptx::lds128(from));
        continue;
      }
#pragma unroll 1
      for (int e = column; e < min(column + kChunk, shape.D); ++e) {
        const int place = e - column;
        const uint32_t word = ptx::lds32(from + static_cast<uint32_t>(place / kPerWord * 4));
        if constexpr (sizeof(T) == 4) {
          to[e] = __uint_as_float(word);
        } else {
          to[e].bits = static_cast<uint16_t>(word >> 16 * (place & 1));
        }
      }
    }
  }
};

__device__ __forceinline__ float4 load4(uint32_t shared) {
  const uint4 bits = ptx::lds128(shared);
  return {__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
          __uint_as_float(bits.w)};
}

// The left factor of a product along Dim: 16 rows of a tile, in registers where they fit.
template <class T, int Dim, bool kInRegisters>
struct LeftRows {
  Tile<T, Dim> rows;
  __device__ __forceinline__ void load(Tile<T, Dim> from) { rows = from; }
  __device__ __forceinline__ void fragment(int step, uint32_t (&a)[4]) const {
    const int lane = lane_id();
    ptx::ldsm_x4(a, rows.move(rows.at(lane & 15, lane >> 4), 0, 2 * step));
  }
};
template <int Dim>
struct LeftRows<bf16, Dim, true> {
  uint32_t held[Dim / 16][4];
  __device__ __forceinline__ void load(Tile<bf16, Dim> from) {
    const LeftRows<bf16, Dim, false> rows{from};
#pragma unroll
    for (int step = 0; step < Dim / 16; ++step) rows.fragment(step, held[step]);
  }
  __device__ __forceinline__ void fragment(int step, uint32_t (&a)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = held[step][i];
  }
};

template <int M, int N>
__device__ __forceinline__ void clear(float (&c)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) c[m][n][e] = 0.0f;
    }
  }
}

// c[m] (16 x 8 N) = left[m] (16 x Dim) * right (8 N x Dim)^T: a fragment of the right rows serves
// all M left factors.
template <int M, int N, int Dim, bool R>
__device__ __forceinline__ void multiply_transposed(float (&c)[M][N][4],
                                                    const LeftRows<bf16, Dim, R> (&left)[M],
                                                    Tile<bf16, Dim> right) {
  static_assert(N % 2 == 0);
  const int lane = lane_id();
  const uint32_t corner = right.at((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
  clear(c);
  // Where the left factor is in shared memory too its addresses take registers.
#pragma unroll R ? Dim / 16 : 4
  for (int step = 0; step < Dim / 16; ++step) {
    uint32_t a[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) left[m].fragment(step, a[m]);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t b[4];
      ptx::ldsm_x4(b, right.move(corner, 8 * n, 2 * step));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        ptx::mma_bf16(c[m][n], a[m], b[0], b[1]);
        ptx::mma_bf16(c[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}
template <int M, int N, int Dim, bool R>
__device__ __forceinline__ void multiply_transposed(float (&c)[M][N][4],
                                                    const LeftRows<float, Dim, R> (&left)[M],
                                                    Tile<float, Dim> right) {
  const int g = lane_id() >> 2, q = lane_id() & 3;
  const uint32_t corners[2] = {right.at(2 * q, 0), right.at(2 * q + 1, 0)};
  clear(c);
#pragma unroll 1
  for (int chunk = 0; chunk < Dim / 4; ++chunk) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float4 b = load4(right.move(corners[e], 8 * n, chunk));
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
          for (int part = 0; part < 2; ++part) {
            const float4 a = load4(right.move(left[m].rows.at(g, 0), 8 * part, chunk));
            float& sum = c[m][n][2 * part + e];
            sum = fmaf(a.x, b.x, sum), sum = fmaf(a.y, b.y, sum);
            sum = fmaf(a.z, b.z, sum), sum = fmaf(a.w, b.w, sum);
          }
        }
      }
    }
  }
}

// c (16 x 8 N) += left (16 x 8 K, a product's fragment) * columns first_column .. of right (8 K
// rows).
template <int K, int N, int Dim>
__device__ __forceinline__ void multiply_add(float (&c)[N][4], const float (&left)[K][4],
                                             Tile<bf16, Dim> right, int first_column) {
  static_assert(K % 2 == 0 && N % 2 == 0);
  const int lane = lane_id();
  const uint32_t corner = right.at(lane & 15, lane >> 4);
#pragma unroll
  for (int k = 0; k < K; k += 2) {
    const uint32_t a[4] = {dev::pack_bf16(left[k][0], left[k][1]),
                           dev::pack_bf16(left[k][2], left[k][3]),
                           dev::pack_bf16(left[k + 1][0], left[k + 1][1]),
                           dev::pack_bf16(left[k + 1][2], left[k + 1][3])};
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t b[4];
      ptx::ldsm_x4_t(b, right.move(corner, 8 * k, first_column / 8 + n));
      ptx::mma_bf16(c[n], a, b[0], b[1]);
      ptx::mma_bf16(c[n + 1], a, b[2], b[3]);
    }
  }
}
template <int K, int N, int Dim>
__device__ __forceinline__ void multiply_add(float (&c)[N][4], const float (&left)[K][4],
                                             Tile<float, Dim> right, int first_column) {
  const int quad = lane_id() & ~3, q = lane_id() & 3;
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const uint32_t corner = right.at(j, q >> 1) + 8 * (q & 1);
      const float upper = __shfl_sync(kAllLanes, left[k][j & 1], quad + j / 2);
      const float lower = __shfl_sync(kAllLanes, left[k][2 + (j & 1)], quad + j / 2);
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const uint2 pair = ptx::lds64(right.move(corner, 8 * k, first_column / 4 + 2 * n));
        const float b0 = __uint_as_float(pair.x), b1 = __uint_as_float(pair.y);
        c[n][0] = fmaf(upper, b0, c[n][0]), c[n][1] = fmaf(upper, b1, c[n][1]);
        c[n][2] = fmaf(lower, b0, c[n][2]), c[n][3] = fmaf(lower, b1, c[n][3]);
      }
    }
  }
}

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Stores the fragments c of a warp, rows g times factor[0] and rows g + 8 times factor[1], as
// columns first .. of the rows target(0 .. 15), by way of 16 rows of shared memory.
template <class T, int Dim, int N, class Target>
__device__ __forceinline__ void store_fragments(Tile<T, Dim> way, const float (&c)[N][4],
                                                const float (&factor)[2], int first,
                                                const Shape& shape, Target target) {
  const int g = lane_id() >> 2, q = lane_id() & 3;
  __syncwarp();  // what went this way before is gone
#pragma unroll
  for (int part = 0; part < 2; ++part) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float x = factor[part] * c[n][2 * part], y = factor[part] * c[n][2 * part + 1];
      const int column = first + 8 * n;
      if constexpr (sizeof(T) == 4) {
        ptx::sts64(way.at(g + 8 * part, column / 4 + (q >> 1)) + 8 * (q & 1),
                   {__float_as_uint(x), __float_as_uint(y)});
      } else {
        ptx::sts32(way.at(g + 8 * part, column / 8) + 4 * q, dev::pack_bf16(x, y));
      }
    }
  }
  __syncwarp();  // the rows are complete
  way.template store<8 * N>(first, shape, target);
}

}  // namespace rodimus::cuda::ska
