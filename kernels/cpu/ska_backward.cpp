// Attention backward, one task per (batch entry, head, segment of queries): for each key tile, dk
// and dv accumulate in L2 over the query tiles that see it, and dq of the whole segment is in the
// thread's workspace; so the weights are computed once (5 products), nothing is atomic, and each
// sum has a fixed order. The number of segments depends only on the sizes.
//   p = exp(q k / sqrt(D) - lse);  ds = p (d_o v^T - delta), delta = rowsum(d_o o)
//   dv = p^T d_o;  dk = ds^T q / sqrt(D);  dq = ds k / sqrt(D)
// Workspace: f32 copies of k and v; where heads or segments share a key, one f32 dk or dv for each.
#include <omp.h>

#include <cmath>
#include <optional>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/ska_tiles.h"
#include "kernels/memory.h"

namespace rodimus {
namespace cpu::ska {
namespace {

// Enough tasks for many cores even if B * H is small; more segments mean more partial sums of dk
// and dv.
constexpr int64_t kWantedTasks = 32, kShortestSegment = 3 * kQueryTile;

// A run of queries and the key tiles it touches; `offset` tiles of partial sums precede its own.
struct Segment {
  Range queries, tiles;
  int64_t offset;
};

std::vector<Segment> cut(const SkaDims& dims) {
  const int64_t longest = std::max<int64_t>(dims.left < 0 ? 0 : dims.left, kShortestSegment);
  const int64_t wanted = (kWantedTasks + dims.B * dims.H - 1) / (dims.B * dims.H);
  const int64_t count = std::clamp<int64_t>(dims.T / longest, 1, wanted);
  const int64_t length = round_up((dims.T + count - 1) / count, kQueryTile);
  std::vector<Segment> segments;
  int64_t offset = 0;
  for (int64_t first = 0; first < dims.T; first += length) {
    const Range queries{first, std::min(first + length, dims.T)};
    const Range keys = visible_keys(dims, nullptr, queries);
    const Range tiles{keys.begin / kKeyTile, (keys.end + kKeyTile - 1) / kKeyTile};
    segments.push_back({queries, tiles, offset});
    offset += tiles.end - tiles.begin;
  }
  return segments;
}

// Key tiles of all segments together, and rows of the longest.
int64_t partial_tiles(const std::vector<Segment>& segments) {
  return segments.back().offset + segments.back().tiles.end - segments.back().tiles.begin;
}
int64_t segment_rows(const std::vector<Segment>& segments) {
  return round_up(segments[0].queries.end - segments[0].queries.begin, kQueryTile);
}
// Whether each of the `heads` key heads gets contributions from only one query head, in one
// segment.
bool contributes_alone(const std::vector<Segment>& segments, const SkaDims& dims, int64_t heads) {
  return segments.size() == 1 && segments[0].tiles.begin == 0 && heads == dims.H;
}
// Workspace of one thread: q, d_o, dq (rows, width); delta and lse (rows); dk and dv of one key
// tile.
int64_t thread_floats(const std::vector<Segment>& segments, int64_t width) {
  return round_up(segment_rows(segments) * (3 * width + 2) + 2 * kKeyTile * width, 16);
}

// Where the dk (or dv) of the shared heads goes: straight to the result if it is the only
// contribution, else to f32 partial sums (B, H, partial tiles, kKeyTile, width) that `finish` adds
// up.
template <class T>
struct KeyGradient {
  T* result;      // (B, Tk, heads, D)
  int64_t heads;  // Hk or Hv
  float factor;   // multiplies the finished sum
  bool direct;
  float* partials;  // null when direct
};

template <class T>
struct Backward {
  T* dq;
  const T *d_o, *q, *k, *v, *o;
  const float* lse;
  const int32_t* starts;
  SkaDims dims;
  std::vector<Segment> segments;
  KeyGradient<T> dk, dv;
  float *packed_k, *packed_kt, *packed_vt;  // (B,heads,tiles, ...) as in the forward pass

  int64_t width() const { return padded(dims.D); }
  int64_t tile_size() const { return kKeyTile * width(); }
  int64_t tiles() const { return (dims.Tk + kKeyTile - 1) / kKeyTile; }
  int64_t partial_tiles() const { return ska::partial_tiles(segments); }
  int64_t segment_rows() const { return ska::segment_rows(segments); }

  void pack(int64_t task, float* scratch) const {
    const int64_t heads = dims.Hk + dims.Hv;
    const int64_t head = task % heads, tile = task / heads % tiles(), b = task / heads / tiles();
    const int64_t first = tile * kKeyTile, rows = std::min<int64_t>(kKeyTile, dims.Tk - first);
    if (head < dims.Hk) {
      const int64_t at = ((b * dims.Hk + head) * tiles() + tile) * tile_size();
      const T* from = k + ((b * dims.Tk + first) * dims.Hk + head) * dims.D;
      pack_rows(packed_k + at, from, dims.Hk * dims.D, rows, kKeyTile, dims.D, 1.0f);
      micro::transpose(packed_kt + at, kKeyTile, packed_k + at, width(), kKeyTile, dims.D);
    } else {
      const int64_t h = head - dims.Hk;
      pack_transposed(packed_vt + ((b * dims.Hv + h) * tiles() + tile) * tile_size(), scratch,
                      v + ((b * dims.Tk + first) * dims.Hv + h) * dims.D, dims.Hv * dims.D, rows,
                      dims.D);
    }
  }

  void store_key_tile(const KeyGradient<T>& to, const float* sum, int64_t b, int64_t h,
                      const Segment& segment, int64_t tile) const {
    if (!to.direct) {
      std::copy(sum, sum + tile_size(),
                to.partials + ((b * dims.H + h) * partial_tiles() + segment.offset + tile -
                               segment.tiles.begin) *
                                  tile_size());
      return;
    }
    const int64_t first = tile * kKeyTile, rows = std::min<int64_t>(kKeyTile, dims.Tk - first);
    for (int64_t r = 0; r < rows; ++r) {
      T* row = to.result + ((b * dims.Tk + first + r) * to.heads + h) * dims.D;
      simd::for_lanes(dims.D, [&](int64_t d, auto lanes) {
        simd::store(row + d, to.factor * simd::load(sum + r * width() + d), lanes);
      });
    }
  }

  // Sums the partials of one key tile: heads ascending, segments ascending.
  void finish(const KeyGradient<T>& to, int64_t task) const {
    const int64_t tile = task % tiles(), head = task / tiles() % to.heads,
                  b = task / tiles() / to.heads;
    const int64_t first = tile * kKeyTile, rows = std::min<int64_t>(kKeyTile, dims.Tk - first);
    for (int64_t r = 0; r < rows; ++r) {
      T* row = to.result + ((b * dims.Tk + first + r) * to.heads + head) * dims.D;
      simd::for_lanes(dims.D, [&](int64_t d, auto lanes) {
        Vec sum{};
        for (int64_t h = head; h < dims.H; h += to.heads) {
          for (const Segment& segment : segments) {
            if (tile < segment.tiles.begin || tile >= segment.tiles.end) continue;
            const int64_t at =
                (b * dims.H + h) * partial_tiles() + segment.offset + tile - segment.tiles.begin;
            sum += simd::load(to.partials + at * tile_size() + r * width() + d);
          }
        }
        simd::store(row + d, to.factor * sum, lanes);
      });
    }
  }

  void run(int64_t b, int64_t h, const Segment& segment, float* scratch) const {
    const int32_t* document = starts == nullptr ? nullptr : starts + b * dims.T;
    const int64_t rows = segment.queries.end - segment.queries.begin, capacity = segment_rows();
    float* scaled_q = scratch;  // q log2(e) / sqrt(D)
    float* d_out = scaled_q + capacity * width();
    float* dq_sum = d_out + capacity * width();
    float* dk_sum = dq_sum + capacity * width();  // (kKeyTile, width)
    float* dv_sum = dk_sum + tile_size();
    float* delta = dv_sum + tile_size();
    float* log2_sum = delta + capacity;  // lse in powers of two

    const int64_t first_row = (b * dims.T + segment.queries.begin) * dims.H + h;
    const int64_t stride = dims.H * dims.D, rows_padded = round_up(rows, kRowGroup);
    const float scale = 1.0f / std::sqrt(static_cast<float>(dims.D));
    pack_rows(scaled_q, q + first_row * dims.D, stride, rows, rows_padded, dims.D,
              simd::kLog2e * scale);
    pack_rows(d_out, d_o + first_row * dims.D, stride, rows, rows_padded, dims.D, 1.0f);
    std::fill(dq_sum, dq_sum + rows_padded * width(), 0.0f);
    for (int64_t r = 0; r < rows; ++r) {
      Vec sum{};
      simd::for_lanes(dims.D, [&](int64_t d, auto lanes) {
        sum += simd::load(d_out + r * width() + d) *
               simd::load(o + first_row * dims.D + r * stride + d, lanes);
      });
      delta[r] = simd::reduce_add(sum);
      log2_sum[r] = simd::kLog2e * lse[(b * dims.H + h) * dims.T + segment.queries.begin + r];
    }

    const int64_t k_head = (b * dims.Hk + h % dims.Hk) * tiles();
    const int64_t v_head = (b * dims.Hv + h % dims.Hv) * tiles();
    for (int64_t tile = segment.tiles.begin; tile < segment.tiles.end; ++tile) {
      std::fill(dk_sum, dk_sum + 2 * tile_size(), 0.0f);
      for (int64_t r = 0; r < rows; r += kQueryTile) {
        const Range queries{segment.queries.begin + r,
                            std::min(segment.queries.begin + r + kQueryTile, segment.queries.end)};
        const Range keys = visible_keys(dims, document, queries);
        if (keys.begin >= (tile + 1) * kKeyTile || keys.end <= tile * kKeyTile) continue;
        const TileMask mask(dims, document, queries, tile * kKeyTile);
        step(mask, scaled_q + r * width(), d_out + r * width(), delta + r, log2_sum + r,
             packed_k + (k_head + tile) * tile_size(), packed_kt + (k_head + tile) * tile_size(),
             packed_vt + (v_head + tile) * tile_size(), dq_sum + r * width(), dk_sum, dv_sum);
      }
      store_key_tile(dk, dk_sum, b, h, segment, tile);
      store_key_tile(dv, dv_sum, b, h, segment, tile);
    }
    for (int64_t r = 0; r < rows; ++r) {
      simd::for_lanes(dims.D, [&](int64_t d, auto lanes) {
        simd::store(dq + first_row * dims.D + r * stride + d,
                    scale * simd::load(dq_sum + r * width() + d), lanes);
      });
    }
  }

  // One tile of queries against one tile of keys.
  void step(const TileMask& mask, const float* scaled_q, const float* d_out, const float* delta,
            const float* log2_sum, const float* kp, const float* kt, const float* vt, float* dq_sum,
            float* dk_sum, float* dv_sum) const {
    alignas(64) float p[kQueryTile * kKeyTile], ds[kQueryTile * kKeyTile];
    const int64_t w = width();
    for (int64_t r = 0; r < kQueryTile; r += kRowGroup) {
      const Range seen = mask.group[r / kRowGroup];
      if (seen.empty()) {  // queries_of may span such groups
        std::fill(p + r * kKeyTile, p + (r + kRowGroup) * kKeyTile, 0.0f);
        std::fill(ds + r * kKeyTile, ds + (r + kRowGroup) * kKeyTile, 0.0f);
        continue;
      }
      const int64_t begin = seen.begin / micro::kTileCols * micro::kTileCols,
                    end = round_up(seen.end, micro::kTileCols);
      multiply(p + r * kKeyTile + begin, kKeyTile, scaled_q + r * w, w, kt + begin, kKeyTile,
               end - begin, dims.D);
      multiply(ds + r * kKeyTile + begin, kKeyTile, d_out + r * w, w, vt + begin, kKeyTile,
               end - begin, dims.D);
      for (int64_t i = r; i < r + kRowGroup; ++i) {
        float *weight = p + i * kKeyTile, *slope = ds + i * kKeyTile;
        const Range keys = mask.row[i];
        if (!keys.empty()) {
          for (int64_t j = begin; j < end; j += kLanes) {
            const Vec weights = cpu::exp2(simd::load(weight + j) - log2_sum[i]);
            simd::store(weight + j, weights);
            simd::store(slope + j, weights * (simd::load(slope + j) - delta[i]));
          }
        }
        for (float* row : {weight, slope}) {
          std::fill(row, row + keys.begin, 0.0f);
          std::fill(row + keys.end, row + kKeyTile, 0.0f);
        }
      }
      multiply_add(dq_sum + r * w, w, ds + r * kKeyTile + seen.begin, kKeyTile, kp + seen.begin * w,
                   w, w, seen.end - seen.begin);
    }
    for (int64_t n = 0; n < kKeyTile; n += kRowGroup) {
      const Range m = mask.queries_of({n, n + kRowGroup});
      if (m.empty()) continue;
      multiply_transposed_add(dv_sum + n * w, w, p + m.begin * kKeyTile + n, kKeyTile,
                              d_out + m.begin * w, w, w, m.end - m.begin);
      multiply_transposed_add(dk_sum + n * w, w, ds + m.begin * kKeyTile + n, kKeyTile,
                              scaled_q + m.begin * w, w, w, m.end - m.begin);
    }
  }
};

}  // namespace
}  // namespace cpu::ska

template <class T>
void ska_backward(Cpu& exec, const SkaBackwardArgs<T>& args) {
  using namespace cpu;
  using ska::KeyGradient;
  const SkaDims dims = ska::checked(args.dims, args.starts);
  if (dims.B == 0 || dims.T == 0) {
    std::fill(args.dk, args.dk + dims.B * dims.Tk * dims.Hk * dims.D, T{});
    std::fill(args.dv, args.dv + dims.B * dims.Tk * dims.Hv * dims.D, T{});
    return;
  }
  ska::Backward<T> pass{.dq = args.dq,
                        .d_o = args.d_o,
                        .q = args.q,
                        .k = args.k,
                        .v = args.v,
                        .o = args.o,
                        .lse = args.lse,
                        .starts = args.starts,
                        .dims = dims,
                        .segments = ska::cut(dims),
                        .dk = {},
                        .dv = {},
                        .packed_k = nullptr,
                        .packed_kt = nullptr,
                        .packed_vt = nullptr};
  const auto alone = [&](int64_t heads) {
    return ska::contributes_alone(pass.segments, dims, heads);
  };
  // scaled_q includes log2(e), so dk still needs the factor ln 2.
  pass.dk = {args.dk, dims.Hk, simd::kLn2, alone(dims.Hk), nullptr};
  pass.dv = {args.dv, dims.Hv, 1.0f, alone(dims.Hv), nullptr};

  const int64_t packed_size = dims.B * pass.tiles() * pass.tile_size();
  const memory::Scratch<float> packed_k(dims.Hk * packed_size), packed_kt(dims.Hk * packed_size),
      packed_vt(dims.Hv * packed_size);
  pass.packed_k = packed_k.data();
  pass.packed_kt = packed_kt.data();
  pass.packed_vt = packed_vt.data();
  std::optional<memory::Scratch<float>> dk_partials, dv_partials;
  const int64_t partial_size = dims.B * dims.H * pass.partial_tiles() * pass.tile_size();
  if (!pass.dk.direct) pass.dk.partials = dk_partials.emplace(partial_size).data();
  if (!pass.dv.direct) pass.dv.partials = dv_partials.emplace(partial_size).data();
  const int64_t scratch_size = ska::thread_floats(pass.segments, pass.width());
  const memory::Scratch<float> scratch(std::max(exec.threads, 1) * scratch_size);

  parallel_tasks(exec, dims.B * (dims.Hk + dims.Hv) * pass.tiles(), [&](int64_t task) {
    pass.pack(task, scratch.data() + omp_get_thread_num() * scratch_size);
  });
  const int64_t segments = static_cast<int64_t>(pass.segments.size());
  parallel_tasks(exec, dims.B * dims.H * segments, [&](int64_t task) {
    const int64_t head = task / segments;
    // The last segment sees the most keys, so it is handed out first.
    pass.run(head / dims.H, head % dims.H,
             pass.segments[static_cast<size_t>(segments - 1 - task % segments)],
             scratch.data() + omp_get_thread_num() * scratch_size);
  });
  for (const KeyGradient<T>& gradient : {pass.dk, pass.dv}) {
    if (gradient.direct) continue;
    parallel_tasks(exec, dims.B * gradient.heads * pass.tiles(),
                   [&](int64_t task) { pass.finish(gradient, task); });
  }
}

ScratchBytes ska_backward_scratch(const Cpu& exec, SkaDims dims) {
  using namespace cpu;
  dims = ska_checked(dims, false);
  if (dims.B == 0 || dims.T == 0) return {};
  constexpr int64_t kFloat = sizeof(float);
  const auto segments = ska::cut(dims);
  const int64_t width = ska::padded(dims.D), tile = ska::kKeyTile * width * kFloat;
  const int64_t packed = dims.B * ((dims.Tk + ska::kKeyTile - 1) / ska::kKeyTile) * tile;
  ScratchBytes blocks{dims.Hk * packed, dims.Hk * packed, dims.Hv * packed,
                      std::max(exec.threads, 1) * ska::thread_floats(segments, width) * kFloat};
  for (const int64_t heads : {dims.Hk, dims.Hv}) {
    if (!ska::contributes_alone(segments, dims, heads))
      blocks.push_back(dims.B * dims.H * ska::partial_tiles(segments) * tile);
  }
  return blocks;
}

template void ska_backward(Cpu&, const SkaBackwardArgs<float>&);
template void ska_backward(Cpu&, const SkaBackwardArgs<bf16>&);

}  // namespace rodimus
