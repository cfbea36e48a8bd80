// Shared by the CPU forward and backward of DDTS: the work on one chunk of 64 tokens of one
// sequence, split into sub-chunks of 16.
//
// Decays are never differences of cumulative logs. Within a sub-chunk they are running products of
// exp(g_t) <= 1, across sub-chunks they are exp of each sub-chunk's sum of g: nothing overflows,
// and a cumulative log decay of -5000 costs no precision. A document start is a decay of exactly 0
// at its first token, which multiplies everything that crosses it, gradients included.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/microkernel.h"
#include "kernels/cpu/simd.h"
#include "kernels/ddts.h"

namespace rodimus::cpu::ddts {

inline constexpr int64_t kChunk = 64;
inline constexpr int64_t kSub = 16;
inline constexpr int64_t kSubs = kChunk / kSub;
inline constexpr int64_t kBlock = 64;  // columns of V processed together
inline constexpr int64_t kLd = 80;     // leading dimension of 64-column operands, see microkernel.h

inline constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
inline int64_t padded_keys(int64_t K) { return round_up(K, micro::kTileCols); }

// How (B,T,.) is divided.
struct Tiling {
  explicit Tiling(DdtsDims dims)
      : Kp(padded_keys(dims.K)),
        chunks((dims.T + kChunk - 1) / kChunk),
        blocks((dims.V + kBlock - 1) / kBlock) {}
  int64_t Kp;      // keys, padded with zeros
  int64_t chunks;  // per sequence
  int64_t blocks;  // of value columns
};

// How many blocks of one sequence a task walks through time together: many, so that a chunk's
// operands are read once for all of them, but few enough that every thread has work and the states
// stay in the L2 cache. Columns do not interact, so the choice does not affect the bits.
inline int64_t blocks_per_task(const Cpu& exec, int64_t sequences, int64_t blocks) {
  const int64_t wanted_tasks = 4 * std::max(exec.threads, 1);
  const int64_t groups = std::clamp<int64_t>((wanted_tasks + sequences - 1) / sequences, 1, blocks);
  return std::min<int64_t>((blocks + groups - 1) / groups, 8);
}

// The (b, t0 ..) part of q, k, g.
template <class T>
struct ChunkInputs {
  const T *q, *k;         // (length, K)
  const float* g;         // (length, K)
  const int32_t* starts;  // (length) or null
  int64_t t0, length, K;
};

template <class T>
ChunkInputs<T> chunk_inputs(const T* q, const T* k, const float* g, const int32_t* starts,
                            DdtsDims dims, int64_t b, int64_t chunk) {
  const int64_t t0 = chunk * kChunk, row = b * dims.T + t0;
  return {q + row * dims.K,
          k + row * dims.K,
          g + row * dims.K,
          starts == nullptr ? nullptr : starts + row,
          t0,
          std::min(kChunk, dims.T - t0),
          dims.K};
}

// Factors of one chunk. Arrays (kChunk, Kp); tokens >= length have q = k = 0 and decay 1, keys >= K
// are all 0.
class ChunkFactors {
 public:
  // In `storage` of floats(padded), uninitialised.
  ChunkFactors(int64_t padded, float* storage) : Kp(padded) {
    float* next = storage;
    for (float** array : {&q, &k, &decay, &q_decay, &k_decay, &q_local, &k_local}) {
      *array = next;
      next += kChunk * Kp;
    }
    sub_decay = next;
    chunk_decay = next + kSubs * Kp;
  }

  static int64_t floats(int64_t padded) { return (7 * kChunk + kSubs + 1) * padded; }
  void clear() { std::fill_n(q, floats(Kp), 0.0f); }  // q is the first array

  const int64_t Kp;
  float *q, *k;              // q / sqrt(K), k
  float* decay;              // exp(g_t)
  float *q_decay, *k_decay;  // product of the decays first .. t and t+1 .. last of the sub-chunk
  float *q_local, *k_local;  // q q_decay: reads the state at the sub-chunk's entry; k k_decay:
                             // writes that at its exit
  float* sub_decay;          // (kSubs, Kp) of whole sub-chunks
  float* chunk_decay;        // (Kp) of the whole chunk
};

template <class T>
void load_factors(ChunkFactors& f, const ChunkInputs<T>& in);

// q seen from the chunk's entry and k from its exit: out (kChunk, Kp), leading dimension ld.
void queries_from_entry(float* out, int64_t ld, const ChunkFactors& f);
void keys_to_exit(float* out, int64_t ld, const ChunkFactors& f);

// a[i,j] = sum_c q_ic k_jc prod_{j < t <= i} decay_tc for j <= i, zero above: a (kChunk, kChunk),
// leading dimension ld. Rows of sub-chunks that begin at or after `length` are zeroed. workspace:
// scores_floats(Kp).
inline int64_t scores_floats(int64_t Kp) { return Kp * kLd + kSub * Kp; }
void scores(float* a, int64_t ld, const ChunkFactors& f, int64_t length, float* workspace);

// Gradients of one chunk from the gradients of its products:
//   da_t (kChunk, kLd) [j,i] = dL/da[i,j]; dq, dk (kChunk, Kp): on entry, gradients of the outputs
//   of queries_from_entry and keys_to_exit; on return, those of q / sqrt(K) and k;
//   state_dot (Kp) = sum over the columns of entry state times gradient of the exit state;
//   dg (kChunk, Kp) is overwritten; across (kSubs, Kp) is workspace.
// dg_t is the sum over all paths source -> sink that pass through token t's decay (source: entry
// state or a token before t; sink: a token at or after t, or the exit state). The usual form, a
// suffix sum of q dq - k dk, adds the paths that do not pass through t only to subtract them again,
// which leaves rounding noise where decays are strong. Here only paths that cross t are added:
// there are no subtractions.
void backward_within(float* dq, float* dk, float* dg, const float* da_t, const float* state_dot,
                     const ChunkFactors& f, int64_t length, float* across);

// dst (rows, kBlock; leading dimension ld) = src (length, cols; leading dimension ld_src), the rest
// zero.
template <class T>
void load_block(float* dst, int64_t ld, const T* src, int64_t ld_src, int64_t length, int64_t cols,
                int64_t rows) {
  for (int64_t i = 0; i < length; ++i) {
    if (cols == kBlock) {
      for (int64_t j = 0; j < kBlock; j += simd::kLanes)
        simd::store(dst + i * ld + j, simd::load(src + i * ld_src + j));
    } else {
      for (int64_t j = 0; j < cols; ++j) dst[i * ld + j] = to_f32(src[i * ld_src + j]);
      std::fill(dst + i * ld + cols, dst + i * ld + kBlock, 0.0f);
    }
  }
  for (int64_t i = length; i < rows; ++i) std::fill_n(dst + i * ld, kBlock, 0.0f);
}

template <class T>
void store_rows(T* dst, int64_t ld_dst, const float* src, int64_t ld, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i)
    simd::for_lanes(cols, [&](int64_t j, auto lanes) {
      simd::store(dst + i * ld_dst + j, simd::load(src + i * ld + j), lanes);
    });
}

}  // namespace rodimus::cpu::ddts
