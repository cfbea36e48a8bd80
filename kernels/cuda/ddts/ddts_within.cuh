// Backward inside one chunk, per key channel: from the gradients of what the products with value
// columns gave (decayed queries and keys, scores) to dq, dk, dg. All in f32 on the ordinary cores:
// about 6000 multiply-adds per key and chunk, a hundredth of the time of the products at V = 4096.
//
// dg_t is the sum over all paths source -> sink that pass through token t's decay (source: entry
// state or a token before t; sink: a token at or after t, or the exit state). The usual form, a
// suffix sum of q dq - k dk, adds the paths that do not pass through t only to subtract them again,
// which leaves rounding noise where decays are harsh. Here paths are added by where they cross t:
// no subtraction anywhere.
#pragma once

#include "kernels/cuda/ddts/ddts_chunk.cuh"

namespace rodimus::cuda::ddts {

// Gradients that the products leave in shared memory, of one chunk and slice of keys; matrices as
// images.
struct ChunkGradients {
  float dq[kChunk * kSlice];       // of the queries seen from the chunk's entry
  float dk[kChunk * kSlice];       // of the keys seen from its exit
  float dscores[kChunk * kChunk];  // [j, i] = dL / dscores[i, j]; only j <= i is meant
  float state_dot[kSlice];         // sum over columns of entry state times gradient of exit state
};

struct WithinShared {
  float q_local[kChunk * kSlice], k_local[kChunk * kSlice];  // see SubChunk
  float sums[kSubs * kSlice];
  float across[kSubs * kSubs * kSlice];  // [from, to]: what sub-chunk `from` knows of paths through
};

// Where the results go: rows (b, t) of (B,T,K).
template <class T>
struct InputGradients {
  T *dq, *dk;
  float* dg;
};

// Thread = (sub-chunk, key).
template <class T>
struct WithinThread {
  SubChunk x;
  float dq[kSub], dk[kSub];
  float decays[kSubs];  // of whole sub-chunks
  int sub, c;

  __device__ __forceinline__ void load(WithinShared& sm, const Sequences<T>& in, int b, int t0,
                                       int key) {
    x.load(in, b, t0 + sub * kSub, key);
    const int at = sub * kSub * kSlice + c;
    x.from_entry([&](int i, float decay) { sm.q_local[at + i * kSlice] = x.q[i] * decay; });
    x.to_exit([&](int i, float decay) { sm.k_local[at + i * kSlice] = x.k[i] * decay; });
    sm.sums[sub * kSlice + c] = x.sum;
  }

  // Sum over the sub-chunk of a column of a (kChunk, kSlice) array times y.
  __device__ __forceinline__ float dot(const float* a, const float (&y)[kSub]) const {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kSub; ++i) sum += a[(sub * kSub + i) * kSlice + c] * y[i];
    return sum;
  }

  // Gradients of the queries seen from the sub-chunk's own entry: sources in time order, the entry
  // state, then the keys of each earlier sub-chunk. Before sub-chunk s is added, all that is there
  // passes through s whole.
  __device__ __forceinline__ void queries(const ChunkGradients& d, WithinShared& sm) {
#pragma unroll
    for (int i = 0; i < kSub; ++i) dq[i] = d.dq[image_at<float, kSlice>(sub * kSub + i, c)];
#pragma unroll
    for (int s = 0; s < kSubs - 1; ++s) {
      if (s >= sub) break;
      float total = dot(sm.q_local, dq);
#pragma unroll
      for (int between = s; between < kSubs - 1; ++between)
        if (between < sub) total *= decays[between];
      sm.across[(sub * kSubs + s) * kSlice + c] = total;
#pragma unroll
      for (int i = 0; i < kSub; ++i) dq[i] *= decays[s];
#pragma unroll 4
      for (int j = 0; j < kSub; ++j) {
        const float k = sm.k_local[(s * kSub + j) * kSlice + c];
#pragma unroll
        for (int i = 0; i < kSub; i += 4) {
          const float4 da =
              load_float4(d.dscores + image_at<float, kChunk>(s * kSub + j, sub * kSub + i));
          dq[i] += da.x * k, dq[i + 1] += da.y * k, dq[i + 2] += da.z * k, dq[i + 3] += da.w * k;
        }
      }
    }
  }

  // Gradients of the keys seen from the sub-chunk's own exit: sinks in reverse, the exit state,
  // then the queries of each later sub-chunk. Paths to the exit state cross the later sub-chunks
  // here; those between tokens were counted by queries().
  __device__ __forceinline__ void keys(const ChunkGradients& d, WithinShared& sm) {
#pragma unroll
    for (int j = 0; j < kSub; ++j) dk[j] = d.dk[image_at<float, kSlice>(sub * kSub + j, c)];
    float total = dot(sm.k_local, dk);
#pragma unroll
    for (int s = 1; s < kSubs; ++s)
      if (s > sub) total *= decays[s];
#pragma unroll
    for (int s = kSubs - 1; s > 0; --s) {
      if (s <= sub) break;
      sm.across[(sub * kSubs + s) * kSlice + c] = total;
#pragma unroll
      for (int j = 0; j < kSub; ++j) dk[j] *= decays[s];
      float q[kSub];
#pragma unroll
      for (int i = 0; i < kSub; ++i) q[i] = sm.q_local[(s * kSub + i) * kSlice + c];
#pragma unroll
      for (int j = 0; j < kSub; ++j) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < kSub; i += 4) {
          const float4 da =
              load_float4(d.dscores + image_at<float, kChunk>(sub * kSub + j, s * kSub + i));
          sum += (da.x * q[i] + da.y * q[i + 1]) + (da.z * q[i + 2] + da.w * q[i + 3]);
        }
        dk[j] += sum;
      }
    }
  }

  // From the sums over other sub-chunks to the gradients, adding the pairs inside. `prefix`: paths
  // that pass the whole sub-chunk.
  __device__ __forceinline__ void inside(const ChunkGradients& d, float prefix, float (&dg)[kSub]) {
    x.from_entry([&](int i, float decay) { dq[i] *= decay; });
    x.to_exit([&](int i, float decay) { dk[i] *= decay; });
#pragma unroll
    for (int i = 0; i < kSub; ++i) {
      dg[i] = prefix;
      prefix += dk[i] * x.k[i];
    }
    float suffix = 0.0f;
#pragma unroll
    for (int i = kSub - 1; i >= 0; --i) {
      suffix += dq[i] * x.q[i];
      dg[i] += suffix;
    }
#pragma unroll
    for (int j = 0; j < kSub; ++j) {
      const auto da = [&](int i) {
        return d.dscores[image_at<float, kChunk>(sub * kSub + j, sub * kSub + i)];
      };
      float sink[kSub];  // gradient, at token i, of the part of the state that key j wrote
      float y = 0.0f;
#pragma unroll
      for (int i = kSub - 1; i > j; --i) {
        y += da(i) * x.q[i];
        sink[i] = y;
        y *= x.decay[i];
      }
      dk[j] += y + da(j) * x.q[j];
      float w = x.k[j];  // that part itself
      dq[j] += da(j) * w;
#pragma unroll
      for (int i = j + 1; i < kSub; ++i) {
        w *= x.decay[i];
        dq[i] += da(i) * w;
        dg[i] += w * sink[i];
      }
    }
  }
};

// Whole block of kSubs * kSlice threads; gradients of chunk `chunk` of sequence b, keys of `slice`.
// `d` need not be whole when this is called: it is read after the first barrier only.
template <class T>
__device__ __forceinline__ void backward_within(const InputGradients<T>& out,
                                                const ChunkGradients& d, WithinShared& sm,
                                                const Sequences<T>& in, int b, int chunk,
                                                int slice) {
  WithinThread<T> thread;
  thread.sub = threadIdx.x / kSlice;
  thread.c = threadIdx.x % kSlice;
  const int sub = thread.sub, c = thread.c, key = slice * kSlice + c;
  thread.load(sm, in, b, chunk * kChunk, key);
  __syncthreads();  // q_local, k_local, sums and d are whole
  float all = 0.0f;
#pragma unroll
  for (int s = 0; s < kSubs; ++s) {
    const float log = sm.sums[s * kSlice + c];
    all += log;
    thread.decays[s] = expf(log);
  }
  thread.queries(d, sm);
  thread.keys(d, sm);
  __syncthreads();  // across is whole; no thread reads q_local, k_local, sums any more
  // Entry state -> exit state passes through every token.
  float prefix = expf(all) * d.state_dot[c];
#pragma unroll
  for (int from = 0; from < kSubs; ++from)
    if (from != sub) prefix += sm.across[(from * kSubs + sub) * kSlice + c];
  float dg[kSub];
  thread.inside(d, prefix, dg);
  if (key >= in.K) return;
  const float scale = 1.0f / sqrtf(static_cast<float>(in.K));
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    const int t = chunk * kChunk + sub * kSub + i;
    if (t >= in.length) break;
    const int64_t at = (static_cast<int64_t>(b) * in.length + t) * in.K + key;
    out.dq[at] = dev::from_float<T>(thread.dq[i] * scale);
    out.dk[at] = dev::from_float<T>(thread.dk[i]);
    out.dg[at] = dg[i];
  }
}

}  // namespace rodimus::cuda::ddts
