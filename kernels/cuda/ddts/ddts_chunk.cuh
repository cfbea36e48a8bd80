// What all value columns of one chunk share, computed once per (sequence, chunk) and kept as one
// record in device memory: the queries seen from the chunk's entry, the keys seen from its exit,
// the scores within the chunk, the chunk's decay. About 21 KB per chunk at K = 64 in bf16 (its q, k
// and g take 32 KB); every block of value columns reads it through the L2 cache instead of
// computing it again.
//
// Decays are never differences of cumulative logs. Within a sub-chunk they are running products of
// exp(g_t) <= 1, across sub-chunks exp of the sub-chunk's sum of g: nothing overflows, and a
// cumulative log decay of -5000 loses no digits to its size. A document start is g = -inf.
#pragma once

#include "kernels/cuda/ddts/ddts_tiles.cuh"

namespace rodimus::cuda::ddts {

inline constexpr int kOperandImage = kChunk * kSlice;         // elements
inline constexpr int kScoreImage = kSub * kSub;               // elements of one 16x16 block
inline constexpr int kScoreBlocks = kSubs * (kSubs + 1) / 2;  // on and below the diagonal
__host__ __device__ inline constexpr int score_block(int row, int col) {
  return row * (row + 1) / 2 + col;
}

// Layout of a record, in elements of T: read (slices, kChunk, kSlice) | scores (blocks, 16, 16) |
// write (slices, kChunk, kSlice) | decay (slices * kSlice) as float.
template <class T>
struct Record {
  int slices;

  __host__ __device__ int read() const { return 0; }
  __host__ __device__ int scores() const { return slices * kOperandImage; }
  __host__ __device__ int write() const { return scores() + kScoreBlocks * kScoreImage; }
  __host__ __device__ int decay() const { return write() + slices * kOperandImage; }
  __host__ __device__ int size() const {
    return decay() + slices * kSlice * static_cast<int>(sizeof(float) / sizeof(T));
  }
};

// The caller's q, k, g (B,T,K) and starts (B,T) or null.
template <class T>
struct Sequences {
  const T *q, *k;
  const float* g;
  const int32_t* starts;
  int length, K, chunks;  // tokens, keys, chunks of one sequence
};

// 16 tokens of one key channel. Tokens beyond the sequence and keys beyond K: q = k = 0, g = 0.
struct SubChunk {
  float q[kSub], k[kSub];  // q / sqrt(K), k
  float decay[kSub];       // exp(g_t), 0 at a document start
  float sum;               // of g, -inf when a document starts inside

  template <class T>
  __device__ __forceinline__ void load(const Sequences<T>& in, int b, int t0, int c) {
    const float scale = 1.0f / sqrtf(static_cast<float>(in.K));
    sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kSub; ++i) {
      const int t = t0 + i;
      const int64_t row = static_cast<int64_t>(b) * in.length + t;
      float g = 0.0f;
      q[i] = k[i] = 0.0f;
      if (t < in.length && c < in.K) {
        const int64_t at = row * in.K + c;
        q[i] = dev::to_float(in.q[at]) * scale;
        k[i] = dev::to_float(in.k[at]);
        const bool start = in.starts != nullptr && t > 0 && in.starts[row] == t;
        g = start ? -INFINITY : in.g[at];
      }
      decay[i] = expf(g);
      sum += g;
    }
  }

  // f(i, product of the decays first .. i).
  template <class F>
  __device__ __forceinline__ void from_entry(F f) const {
    float product = 1.0f;
#pragma unroll
    for (int i = 0; i < kSub; ++i) {
      product *= decay[i];
      f(i, product);
    }
  }
  // f(i, product of the decays i + 1 .. last).
  template <class F>
  __device__ __forceinline__ void to_exit(F f) const {
    float product = 1.0f;
#pragma unroll
    for (int i = kSub - 1; i >= 0; --i) {
      f(i, product);
      product *= decay[i];
    }
  }
};

// Shared memory of the records kernel.
template <class T>
struct RecordsShared {
  static constexpr int kLd = kSlice + 8;  // floats: fragments read 8 rows x 8 columns at once
  float q[kChunk * kLd], k[kChunk * kLd], decay[kChunk * kLd];
  float q_local[kChunk * kLd], k_local[kChunk * kLd];  // seen from the sub-chunk's entry and exit
  float sums[kSubs * kSlice];                          // of g over sub-chunks
  alignas(16) T read[kOperandImage];
  alignas(16) T write[kOperandImage];
  alignas(16) T scores[kScoreBlocks * kScoreImage];
};

// The 16x16 part of a float matrix at (row, col), columns scaled by exp(sum of logs[s] over s in
// [first, last)).
template <class T>
__device__ __forceinline__ Frag<T> scaled_frag(const float* x, int ld, int row, int col,
                                               const float* logs, int first, int last) {
  const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
  Frag<T> f;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int c = col + 2 * q + 8 * (i >> 1);
    float log0 = 0.0f, log1 = 0.0f;
    for (int s = first; s < last; ++s)
      log0 += logs[s * kSlice + c], log1 += logs[s * kSlice + c + 1];
    const float2 v = load_float2(x + (row + g + 8 * (i & 1)) * ld + c);
    f.set(i, v.x * expf(log0), v.y * expf(log1));
  }
  return f;
}

inline constexpr int kRecordThreads = kSubs * kSlice;

// One block per (sequence, chunk); thread = (sub-chunk, key) where keys are concerned.
template <class T>
__global__ void __launch_bounds__(kRecordThreads)
    ddts_records_kernel(T* records, Sequences<T> in, int slices) {
  DYN_SHARED(bytes);
  auto& sm = *reinterpret_cast<RecordsShared<T>*>(bytes);
  constexpr int kLd = RecordsShared<T>::kLd;
  const int tid = threadIdx.x, sub = tid / kSlice, c = tid % kSlice;
  const int warp = tid / 32, lane = tid % 32, g = lane >> 2, q = lane & 3;
  const int b = blockIdx.x / in.chunks, chunk = blockIdx.x % in.chunks;
  const Record<T> layout{slices};
  T* record = records + static_cast<int64_t>(blockIdx.x) * layout.size();

  // Blocks on the diagonal in f32 arithmetic: thread = (row j of k, every 4th quad of channels).
  const int j = c >> 2, part = c & 3;
  float diagonal[kSub] = {};
  // Warps 0 .. 5 own one block below the diagonal each.
  const int block_row = warp < 1 ? 1 : warp < 3 ? 2 : 3;
  const int block_col = warp - block_row * (block_row - 1) / 2;
  Sums below;
  below.clear();

  for (int slice = 0; slice < slices; ++slice) {
    {
      SubChunk x;
      x.load(in, b, chunk * kChunk + sub * kSub, slice * kSlice + c);
      const int at = sub * kSub * kLd + c;
      x.from_entry([&](int i, float decay) {
        sm.q[at + i * kLd] = x.q[i];
        sm.decay[at + i * kLd] = x.decay[i];
        sm.q_local[at + i * kLd] = x.q[i] * decay;
      });
      x.to_exit([&](int i, float decay) {
        sm.k[at + i * kLd] = x.k[i];
        sm.k_local[at + i * kLd] = x.k[i] * decay;
      });
      sm.sums[sub * kSlice + c] = x.sum;
    }
    __syncthreads();  // q .. sums are whole; the last slice's images have left

    float before = 0.0f, after = 0.0f;
    for (int s = 0; s < sub; ++s) before += sm.sums[s * kSlice + c];
    for (int s = sub + 1; s < kSubs; ++s) after += sm.sums[s * kSlice + c];
    if (sub == 0)
      reinterpret_cast<float*>(record + layout.decay())[slice * kSlice + c] =
          expf(sm.sums[c] + after);
    before = expf(before);
    after = expf(after);
#pragma unroll
    for (int i = 0; i < kSub; ++i) {
      const int t = sub * kSub + i, at = image_at<T, kSlice>(t, c);
      sm.read[at] = dev::from_float<T>(sm.q_local[t * kLd + c] * before);
      sm.write[at] = dev::from_float<T>(sm.k_local[t * kLd + c] * after);
    }

#pragma unroll 1
    for (int c4 = part * 4; c4 < kSlice; c4 += 16) {
      const int row = sub * kSub;
      float4 w = load_float4(sm.k + (row + j) * kLd + c4);
#pragma unroll
      for (int i = 0; i < kSub; ++i) {
        const float4 d = load_float4(sm.decay + (row + i) * kLd + c4);
        const float4 x = load_float4(sm.q + (row + i) * kLd + c4);
        if (i > j) w.x *= d.x, w.y *= d.y, w.z *= d.z, w.w *= d.w;
        if (i >= j) diagonal[i] += (x.x * w.x + x.y * w.y) + (x.z * w.z + x.w * w.w);
      }
    }
    if (warp < kScoreBlocks - kSubs) {
      for (int c16 = 0; c16 < kSlice; c16 += kSub)
        multiply(below,
                 scaled_frag<T>(sm.q_local, kLd, block_row * kSub, c16, sm.sums, block_col + 1,
                                block_row),
                 scaled_frag<T>(sm.k_local, kLd, block_col * kSub, c16, sm.sums, 0, 0));
    }
    __syncthreads();  // the images are whole; q .. sums may be overwritten

    for (int i = tid * kVector<T>; i < kOperandImage; i += kRecordThreads * kVector<T>) {
      const int at = slice * kOperandImage + i;
      ptx::stg128(record + layout.read() + at, ptx::lds128(ptx::smem_u32(sm.read + i)));
      ptx::stg128(record + layout.write() + at, ptx::lds128(ptx::smem_u32(sm.write + i)));
    }
  }

#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    diagonal[i] += __shfl_xor_sync(0xffffffffu, diagonal[i], 1);
    diagonal[i] += __shfl_xor_sync(0xffffffffu, diagonal[i], 2);
    if ((i & 3) == part)
      sm.scores[score_block(sub, sub) * kScoreImage + image_at<T, kSub>(i, j)] =
          dev::from_float<T>(i >= j ? diagonal[i] : 0.0f);
  }
  if (warp < kScoreBlocks - kSubs) {
    T* block = sm.scores + score_block(block_row, block_col) * kScoreImage;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        block[image_at<T, kSub>(g + 8 * (e >> 1), 8 * h + 2 * q + (e & 1))] =
            dev::from_float<T>(below.half[h][e]);
    }
  }
  __syncthreads();  // the scores are whole
  for (int i = tid * kVector<T>; i < kScoreBlocks * kScoreImage; i += kRecordThreads * kVector<T>)
    ptx::stg128(record + layout.scores() + i, ptx::lds128(ptx::smem_u32(sm.scores + i)));
}

}  // namespace rodimus::cuda::ddts
