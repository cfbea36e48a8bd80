// Attention forward, one task per (batch entry, head, tile of queries). Within a task the softmax
// is online over key tiles: keys are packed and transposed, so scores and outputs are both products
// of a broadcast scalar with a row of vectors. Only tiles that the window touches are visited, and
// within them only the vectors that some row of the register tile sees. Workspace: f32 copies of k
// and v.
#include <omp.h>

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/ska_decode.h"
#include "kernels/cpu/ska_tiles.h"
#include "kernels/memory.h"

namespace rodimus {
namespace cpu::ska {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Running softmax of one tile of queries.
struct Rows {
  float largest[kQueryTile];
  Vec sum[kQueryTile];
};

// Scores of one row of the register tile -> weights relative to the running maximum. `s` holds the
// vectors [begin, end) of the group, of which the row sees `keys`; the others become 0.
void softmax_row(float* s, int64_t begin, int64_t end, Range keys, float& largest, Vec& sum,
                 float* o, int64_t width) {
  if (keys.empty()) {
    std::fill(s + begin, s + end, 0.0f);
    return;
  }
  std::fill(s + begin, s + keys.begin, kMinusInfinity);
  std::fill(s + keys.end, s + end, kMinusInfinity);
  Vec top = simd::load(s + begin);
  for (int64_t j = begin + kLanes; j < end; j += kLanes) top = simd::max(top, simd::load(s + j));
  const float tile_largest = simd::reduce_max(top);
  if (tile_largest > largest) {
    if (largest > kMinusInfinity) {
      const Vec shrink = cpu::exp2(simd::broadcast(largest - tile_largest));
      sum *= shrink;
      for (int64_t d = 0; d < width; d += kLanes) simd::store(o + d, simd::load(o + d) * shrink);
    }
    largest = tile_largest;
  }
  // Local copies, because a store to s could change what the references refer to.
  const float shift = largest;
  Vec tile_sum{};
  for (int64_t j = begin; j < end; j += kLanes) {
    const Vec weight = cpu::exp2(simd::load(s + j) - shift);
    tile_sum += weight;
    simd::store(s + j, weight);
  }
  sum += tile_sum;
}

// Excludes keys before the first query's window.
Range seen_tiles(const SkaDims& dims) {
  const Range keys = visible_keys(dims, nullptr, Range{0, dims.T});
  return {keys.begin / kKeyTile, (keys.end + kKeyTile - 1) / kKeyTile};
}
int64_t thread_floats(int64_t width) { return 2 * kQueryTile * width; }

template <class T>
struct Forward {
  T* o;
  float* lse;
  const T *q, *k, *v;
  const int32_t* starts;
  SkaDims dims;
  int64_t width = padded(dims.D), first_tile = 0, tiles = 0;
  float *packed_k = nullptr, *packed_v = nullptr;  // (B,Hk,tiles, width x kKeyTile), (B,Hv,tiles,
                                                   // kKeyTile x width)

  const float* key_tile(int64_t b, int64_t h, int64_t tile) const {
    return packed_k + ((b * dims.Hk + h % dims.Hk) * tiles + tile) * width * kKeyTile;
  }
  const float* value_tile(int64_t b, int64_t h, int64_t tile) const {
    return packed_v + ((b * dims.Hv + h % dims.Hv) * tiles + tile) * width * kKeyTile;
  }

  void pack(int64_t task, float* scratch) const {
    const int64_t heads = dims.Hk + dims.Hv;
    const int64_t head = task % heads, tile = task / heads % tiles, b = task / heads / tiles;
    const int64_t first = (first_tile + tile) * kKeyTile;
    const int64_t rows = std::min<int64_t>(kKeyTile, dims.Tk - first);
    if (head < dims.Hk) {
      pack_transposed(packed_k + ((b * dims.Hk + head) * tiles + tile) * width * kKeyTile, scratch,
                      k + ((b * dims.Tk + first) * dims.Hk + head) * dims.D, dims.Hk * dims.D, rows,
                      dims.D);
    } else {
      const int64_t h = head - dims.Hk;
      pack_rows(packed_v + ((b * dims.Hv + h) * tiles + tile) * width * kKeyTile,
                v + ((b * dims.Tk + first) * dims.Hv + h) * dims.D, dims.Hv * dims.D, rows,
                kKeyTile, dims.D, 1.0f);
    }
  }

  // `scratch` holds two tiles of kQueryTile x width.
  void attend(int64_t b, int64_t h, Range queries, float* scratch) const {
    const int32_t* document = starts == nullptr ? nullptr : starts + b * dims.T;
    const int64_t rows = queries.end - queries.begin, rows_padded = round_up(rows, kRowGroup);
    float* scaled_q = scratch;                  // (kQueryTile, width)
    float* out = scratch + kQueryTile * width;  // (kQueryTile, width), not yet divided by the sum
    const int64_t first_row = (b * dims.T + queries.begin) * dims.H + h;
    pack_rows(scaled_q, q + first_row * dims.D, dims.H * dims.D, rows, rows_padded, dims.D,
              simd::kLog2e / std::sqrt(static_cast<float>(dims.D)));
    std::fill(out, out + rows_padded * width, 0.0f);
    Rows state;
    std::fill(state.largest, state.largest + kQueryTile, kMinusInfinity);
    std::fill(state.sum, state.sum + kQueryTile, Vec{});

    alignas(64) float scores[kRowGroup * kKeyTile];
    const Range keys = visible_keys(dims, document, queries);
    for (int64_t tile = keys.begin / kKeyTile; tile * kKeyTile < keys.end; ++tile) {
      const TileMask mask(dims, document, queries, tile * kKeyTile);
      const float* kt = key_tile(b, h, tile - first_tile);
      const float* vt = value_tile(b, h, tile - first_tile);
      for (int64_t r = 0; r < rows; r += kRowGroup) {
        const Range seen = mask.group[r / kRowGroup];
        if (seen.empty()) continue;
        const int64_t begin = seen.begin / micro::kTileCols * micro::kTileCols,
                      end = round_up(seen.end, micro::kTileCols);
        multiply(scores + begin, kKeyTile, scaled_q + r * width, width, kt + begin, kKeyTile,
                 end - begin, dims.D);
        for (int64_t i = 0; i < kRowGroup; ++i) {
          softmax_row(scores + i * kKeyTile, begin, end, mask.row[r + i], state.largest[r + i],
                      state.sum[r + i], out + (r + i) * width, width);
        }
        multiply_add(out + r * width, width, scores + seen.begin, kKeyTile, vt + seen.begin * width,
                     width, width, seen.end - seen.begin);
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float sum = simd::reduce_add(state.sum[r]);
      lse[(b * dims.H + h) * dims.T + queries.begin + r] =
          state.largest[r] * simd::kLn2 + std::log(sum);
      T* to = o + (first_row + r * dims.H) * dims.D;
      simd::for_lanes(dims.D, [&](int64_t d, auto lanes) {
        simd::store(to + d, simd::load(out + r * width + d) * (1.0f / sum), lanes);
      });
    }
  }
};

}  // namespace
}  // namespace cpu::ska

template <class T>
void ska_forward(Cpu& exec, const SkaForwardArgs<T>& args) {
  using namespace cpu;
  const SkaDims dims = ska::checked(args.dims, args.starts);
  if (dims.B == 0 || dims.T == 0) return;
  if (dims.T <= ska::kDecodeQueries) {
    ska::decode(exec, args, dims);
    return;
  }
  ska::Forward<T> pass{.o = args.o,
                       .lse = args.lse,
                       .q = args.q,
                       .k = args.k,
                       .v = args.v,
                       .starts = args.starts,
                       .dims = dims};
  const ska::Range tiles = ska::seen_tiles(dims);
  pass.first_tile = tiles.begin;
  pass.tiles = tiles.end - tiles.begin;
  const int64_t tile_size = ska::kKeyTile * pass.width;
  const memory::Scratch<float> packed_k(dims.B * dims.Hk * pass.tiles * tile_size);
  const memory::Scratch<float> packed_v(dims.B * dims.Hv * pass.tiles * tile_size);
  const int64_t scratch_size = ska::thread_floats(pass.width);
  const memory::Scratch<float> scratch(std::max(exec.threads, 1) * scratch_size);
  pass.packed_k = packed_k.data();
  pass.packed_v = packed_v.data();
  parallel_tasks(exec, dims.B * (dims.Hk + dims.Hv) * pass.tiles, [&](int64_t task) {
    pass.pack(task, scratch.data() + omp_get_thread_num() * scratch_size);
  });

  const int64_t query_tiles = (dims.T + ska::kQueryTile - 1) / ska::kQueryTile;
  parallel_tasks(exec, dims.B * dims.H * query_tiles, [&](int64_t task) {
    // Heads innermost: they share keys and cache lines. Later queries see more keys: hand them out
    // first, so that no thread is left with the longest at the end.
    const int64_t h = task % dims.H, b = task / dims.H % dims.B;
    const int64_t first = (query_tiles - 1 - task / dims.H / dims.B) * ska::kQueryTile;
    pass.attend(b, h, {first, std::min<int64_t>(first + ska::kQueryTile, dims.T)},
                scratch.data() + omp_get_thread_num() * scratch_size);
  });
}

ScratchBytes ska_forward_scratch(const Cpu& exec, SkaDims dims) {
  using namespace cpu;
  dims = ska_checked(dims, false);
  if (dims.B == 0 || dims.T == 0) return {};
  if (dims.T <= ska::kDecodeQueries) return ska::decode_scratch(exec, dims);
  constexpr int64_t kFloat = sizeof(float);
  const ska::Range tiles = ska::seen_tiles(dims);
  const int64_t width = ska::padded(dims.D);
  const int64_t a_head = dims.B * (tiles.end - tiles.begin) * ska::kKeyTile * width * kFloat;
  return {dims.Hk * a_head, dims.Hv * a_head,
          std::max(exec.threads, 1) * ska::thread_floats(width) * kFloat};
}

template void ska_forward(Cpu&, const SkaForwardArgs<float>&);
template void ska_forward(Cpu&, const SkaForwardArgs<bf16>&);

}  // namespace rodimus
