// One task per (batch entry, block of keys), for all heads: rows of keys and values are read in
// memory order, the only order that the hardware prefetches. A block computes scores, a two-pass
// softmax and the weighted sum of the value rows; the parts of all blocks are combined at the end.
// Workspace: a row of H D floats per query and block.
#include "kernels/cpu/ska_decode.h"

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/ska_tiles.h"
#include "kernels/memory.h"

namespace rodimus::cpu::ska {
namespace {

constexpr int64_t kBlockKeys = 64;

// scores[j] = factor * <q, k_j> for kLanes keys: their sums are independent, and one transposition
// turns the lanes of all sums into scores. With fewer keys, the last one is repeated.
template <class T>
void dot_rows(float* scores, const T* q, const T* k, int64_t stride, int64_t keys, int64_t dim,
              float factor) {
  Vec sum[kLanes] = {};
  const T* row[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) row[i] = k + std::min<int64_t>(i, keys - 1) * stride;
  simd::for_lanes(dim, [&](int64_t d, auto lanes) {
    const Vec left = simd::load(q + d, lanes);
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) sum[i] += left * simd::load(row[i] + d, lanes);
  });
  micro::transpose_lanes(sum);
  for (int64_t i = 1; i < kLanes; ++i) sum[0] += sum[i];
  simd::store(scores, factor * sum[0]);
}

// dot_rows reads several rows side by side, which the hardware prefetcher does not recognise as one
// stream.
template <class T>
void prefetch_rows(const T* rows, int64_t stride, int64_t count, int64_t dim) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < dim; d += 64 / static_cast<int64_t>(sizeof(T)))
      __builtin_prefetch(rows + i * stride + d);
}

// The contribution of one block of keys to the queries of its batch entry.
struct Part {
  float *largest, *sum;  // (T, H): of the scores, in units of log 2, and of 2^(score - largest)
  float* o;              // (T, H, D): sum of 2^(score - largest) v
};

int64_t parts_floats(const SkaDims& dims) { return dims.T * dims.H * (dims.D + 2); }

Range seen_blocks(const SkaDims& dims) {
  const Range keys = visible_keys(dims, nullptr, Range{0, dims.T});
  return {keys.begin / kBlockKeys, (keys.end + kBlockKeys - 1) / kBlockKeys};
}

template <class T>
struct Decode {
  const T *q, *k, *v;
  SkaDims dims;
  Part part(float* scratch, int64_t index) const {
    float* first = scratch + index * parts_floats(dims);
    const int64_t rows = dims.T * dims.H;
    return {first, first + rows, first + 2 * rows};
  }

  // Processes query i of batch entry b with the keys `seen`, at most kBlockKeys. weights: (H,
  // kBlockKeys).
  void block(const Part& part, float* weights, int64_t b, int64_t i, Range seen) const {
    const int64_t keys = seen.end - seen.begin, first = b * dims.Tk + seen.begin;
    const float factor = simd::kLog2e / std::sqrt(static_cast<float>(dims.D));
    const int64_t row_size = dims.Hk * dims.D;
    const T *queries = q + (b * dims.T + i) * dims.H * dims.D, *rows = k + first * row_size;
    for (int64_t j = 0; j < keys; j += kLanes) {
      const T* group = rows + j * row_size;
      const int64_t next = std::clamp<int64_t>(keys - j - kLanes, 0, kLanes);
      prefetch_rows(group + kLanes * row_size, row_size, next, row_size);
      for (int64_t h = 0; h < dims.H; ++h)
        dot_rows(weights + h * kBlockKeys + j, queries + h * dims.D, group + h % dims.Hk * dims.D,
                 row_size, keys - j, dims.D, factor);
    }
    for (int64_t h = 0; h < dims.H; ++h)
      softmax(weights + h * kBlockKeys, keys, part.largest[i * dims.H + h],
              part.sum[i * dims.H + h]);
    float* o = part.o + i * dims.H * dims.D;
    std::fill_n(o, dims.H * dims.D, 0.0f);
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t h = 0; h < dims.H; ++h) {
        const T* value = v + ((first + j) * dims.Hv + h % dims.Hv) * dims.D;
        simd::for_lanes(dims.D, [=, sum = o + h * dims.D, weight = weights[h * kBlockKeys + j]](
                                    int64_t d, auto lanes) {
          simd::store(sum + d,
                      simd::multiply_add(simd::broadcast(weight), simd::load(value + d, lanes),
                                         simd::load(sum + d, lanes)),
                      lanes);
        });
      }
    }
  }

  // scores -> 2^(score - largest), zero up to a multiple of kLanes.
  static void softmax(float* scores, int64_t keys, float& largest, float& sum) {
    // A NaN score is ignored here and reappears through exp2. The maximum starts at the lowest
    // finite number, so that a block whose scores are all -inf has weight zero.
    largest = std::numeric_limits<float>::lowest();
    for (int64_t j = 0; j < keys; ++j) largest = std::max(largest, scores[j]);
    const int64_t end = round_up(keys, kLanes);
    std::fill(scores + keys, scores + end, -std::numeric_limits<float>::infinity());
    Vec total{};
    for (int64_t j = 0; j < end; j += kLanes) {
      const Vec weight = cpu::exp2(simd::load(scores + j) - largest);
      total += weight;
      simd::store(scores + j, weight);
    }
    sum = simd::reduce_add(total);
  }

  // o and lse of head h, query i of batch entry b, from the parts [begin, end) of the entry.
  void combine(T* o, float* lse, float* scratch, int64_t begin, int64_t end, int64_t b, int64_t i,
               int64_t h) const {
    const int64_t row = i * dims.H + h;
    float largest = -std::numeric_limits<float>::infinity(), sum = 0;
    for (int64_t p = begin; p < end; ++p)
      largest = std::max(largest, part(scratch, p).largest[row]);
    float* total = part(scratch, begin).o + row * dims.D;
    for (int64_t p = begin; p < end; ++p) {
      const Part one = part(scratch, p);
      const float scale = std::exp2(one.largest[row] - largest);
      sum += scale * one.sum[row];
      const float* from = one.o + row * dims.D;
      simd::for_lanes(dims.D, [=](int64_t d, auto lanes) {
        const Vec scaled = scale * simd::load(from + d, lanes);
        simd::store(total + d, p == begin ? scaled : simd::load(total + d, lanes) + scaled, lanes);
      });
    }
    lse[(b * dims.H + h) * dims.T + i] = largest * simd::kLn2 + std::log(sum);
    simd::for_lanes(dims.D,
                    [=, to = o + ((b * dims.T + i) * dims.H + h) * dims.D](int64_t d, auto lanes) {
                      simd::store(to + d, simd::load(total + d, lanes) / sum, lanes);
                    });
  }
};

}  // namespace

template <class T>
void decode(Cpu& exec, const SkaForwardArgs<T>& args, const SkaDims& dims) {
  const Decode<T> pass{args.q, args.k, args.v, dims};
  const auto starts_of = [&](int64_t b) {
    return args.starts == nullptr ? nullptr : args.starts + b * dims.T;
  };
  // Blocks start at multiples of kBlockKeys, whatever part of them is visible.
  const Range all = seen_blocks(dims);
  const int64_t first_block = all.begin, blocks = all.end - all.begin;
  const auto seen_in = [&](int64_t b, int64_t i, int64_t block) {
    const Range seen = visible_keys(dims, starts_of(b), i);
    const int64_t first = (first_block + block) * kBlockKeys;
    return Range{std::max(seen.begin, first), std::min(seen.end, first + kBlockKeys)};
  };
  const memory::Scratch<float> scratch(dims.B * blocks * parts_floats(dims));
  const PerThread<float> weights(exec, dims.H * kBlockKeys);
  const int64_t block_elements = kBlockKeys * dims.D * (dims.Hk + dims.Hv);
  parallel_rows(exec, dims.B * blocks, block_elements, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t b = index / blocks;
      for (int64_t i = 0; i < dims.T; ++i) {
        const Range seen = seen_in(b, i, index % blocks);
        if (!seen.empty()) pass.block(pass.part(scratch.data(), index), weights.mine(), b, i, seen);
      }
    }
  });
  const int64_t row_elements = blocks * dims.D;
  parallel_rows(exec, dims.B * dims.T * dims.H, row_elements, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t h = row % dims.H, i = row / dims.H % dims.T, b = row / dims.H / dims.T;
      const Range seen = visible_keys(dims, starts_of(b), i);
      pass.combine(args.o, args.lse, scratch.data(),
                   b * blocks + seen.begin / kBlockKeys - first_block,
                   b * blocks + (seen.end - 1) / kBlockKeys + 1 - first_block, b, i, h);
    }
  });
}

ScratchBytes decode_scratch(const Cpu& exec, const SkaDims& dims) {
  const Range blocks = seen_blocks(dims);
  return {dims.B * (blocks.end - blocks.begin) * parts_floats(dims) * int64_t{sizeof(float)},
          PerThread<float>::bytes(exec, dims.H * kBlockKeys)};
}

template void decode(Cpu&, const SkaForwardArgs<float>&, const SkaDims&);
template void decode(Cpu&, const SkaForwardArgs<bf16>&, const SkaDims&);

}  // namespace rodimus::cpu::ska
