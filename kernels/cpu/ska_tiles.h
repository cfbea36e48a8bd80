// Shared by the attention passes: the register-tiled product of tiles in L1, packing to f32, and
// which query-key pairs of a tile are visible.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "base/error.h"
#include "kernels/cpu/exp2.h"
#include "kernels/cpu/microkernel.h"
#include "kernels/cpu/simd.h"
#include "kernels/ska.h"

namespace rodimus::cpu::ska {

using simd::kLanes;
using simd::Vec;

// Rows whose products share a register tile.
inline constexpr int kRowGroup = micro::kTileRows;
// Multiples of the register tile's rows and columns on every target.
inline constexpr int kQueryTile = 96, kKeyTile = 96;
static_assert(kKeyTile % kRowGroup == 0 && kKeyTile % micro::kTileCols == 0);

inline int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
// Width of packed rows.
inline int64_t padded(int64_t dim) { return round_up(dim, micro::kTileCols); }

// c = a b and c += a b for one row group: c (kRowGroup x n), a (kRowGroup x k), b (k x n).
inline void multiply(float* c, int64_t ldc, const float* a, int64_t lda, const float* b,
                     int64_t ldb, int64_t n, int64_t k) {
  micro::product<micro::ALayout::kRows>(c, ldc, a, lda, b, ldb, kRowGroup, n, k, micro::Zero{});
}
inline void multiply_add(float* c, int64_t ldc, const float* a, int64_t lda, const float* b,
                         int64_t ldb, int64_t n, int64_t k) {
  micro::product<micro::ALayout::kRows>(c, ldc, a, lda, b, ldb, kRowGroup, n, k, micro::Keep{});
}
// c += a^T b, a stored k x kRowGroup.
inline void multiply_transposed_add(float* c, int64_t ldc, const float* a, int64_t lda,
                                    const float* b, int64_t ldb, int64_t n, int64_t k) {
  micro::product<micro::ALayout::kColumns>(c, ldc, a, lda, b, ldb, kRowGroup, n, k, micro::Keep{});
}

// to (padded_rows x padded(dim)) = factor * from (rows x dim, rows `stride` apart), zeros around.
template <class T>
void pack_rows(float* to, const T* from, int64_t stride, int64_t rows, int64_t padded_rows,
               int64_t dim, float factor) {
  constexpr int64_t kAhead = 8;
  const int64_t width = padded(dim);
  for (int64_t r = 0; r < rows; ++r) {
    float* row = to + r * width;
    // Rows of one head are about a page apart, so the hardware does not prefetch them.
    const char* ahead = reinterpret_cast<const char*>(from + (r + kAhead) * stride);
    for (int64_t line = 0; r + kAhead < rows && line < dim * static_cast<int64_t>(sizeof(T));
         line += 64)
      __builtin_prefetch(ahead + line);
    simd::for_lanes(dim, [&](int64_t d, auto lanes) {
      simd::store(row + d, factor * simd::load(from + r * stride + d, lanes), lanes);
    });
    std::fill(row + dim, row + width, 0.0f);
  }
  std::fill(to + rows * width, to + padded_rows * width, 0.0f);
}

// to (padded(dim) x kKeyTile) = the transpose, by way of `scratch` (kKeyTile x padded(dim)).
template <class T>
void pack_transposed(float* to, float* scratch, const T* from, int64_t stride, int64_t rows,
                     int64_t dim) {
  pack_rows(scratch, from, stride, rows, kKeyTile, dim, 1.0f);
  micro::transpose(to, kKeyTile, scratch, padded(dim), kKeyTile, dim);
}

// A half-open run of queries, keys or tiles.
struct Range {
  int64_t begin, end;
  bool empty() const { return begin >= end; }
};

// Keys that query i sees. `starts` is that of the batch entry, or null.
inline Range visible_keys(const SkaDims& dims, const int32_t* starts, int64_t i) {
  const int64_t position = i + dims.Tk - dims.T;
  int64_t begin = dims.left < 0 ? 0 : std::max<int64_t>(0, position - dims.left);
  if (starts != nullptr) begin = std::max<int64_t>(begin, starts[i]);
  return {begin, position + 1};
}
// All keys that any of the queries sees.
inline Range visible_keys(const SkaDims& dims, const int32_t* starts, Range queries) {
  Range all = visible_keys(dims, starts, queries.begin);
  for (int64_t i = queries.begin + 1; i < queries.end; ++i) {
    const Range one = visible_keys(dims, starts, i);
    all = {std::min(all.begin, one.begin), std::max(all.end, one.end)};
  }
  return all;
}

// Query row r of a tile sees keys row[r] of the tile; groups of kRowGroup rows see group[r /
// kRowGroup]. Positions are relative to the tile.
struct TileMask {
  bool full;  // every query sees every key
  Range row[kQueryTile], group[kQueryTile / kRowGroup];

  TileMask(const SkaDims& dims, const int32_t* starts, Range queries, int64_t first_key)
      : full(queries.end - queries.begin == kQueryTile) {
    for (int64_t r = 0; r < kQueryTile; ++r) {
      Range& keys = row[r];
      keys = {0, 0};
      if (queries.begin + r < queries.end) {
        const Range seen = visible_keys(dims, starts, queries.begin + r);
        keys = {std::max<int64_t>(seen.begin - first_key, 0),
                std::min<int64_t>(seen.end - first_key, kKeyTile)};
        if (keys.empty()) keys = {0, 0};
      }
      full = full && keys.begin == 0 && keys.end == kKeyTile;
      Range& all = group[r / kRowGroup];
      if (r % kRowGroup == 0 || all.empty()) {
        all = keys;
      } else if (!keys.empty()) {
        all = {std::min(all.begin, keys.begin), std::max(all.end, keys.end)};
      }
    }
  }
  // The range of rows that see any of the keys; rows inside it may see none.
  Range queries_of(Range keys) const {
    if (full) return {0, kQueryTile};
    Range rows{kQueryTile, 0};
    for (int64_t r = 0; r < kQueryTile; ++r) {
      if (row[r].begin < keys.end && row[r].end > keys.begin) {
        rows = {std::min(rows.begin, r), r + 1};
      }
    }
    return rows;
  }
};

// As ska_checked, but checks the starts as well.
inline SkaDims checked(SkaDims dims, const int32_t* starts) {
  dims = ska_checked(dims, starts != nullptr);
  if (starts != nullptr) {
    for (int64_t i = 0; i < dims.B * dims.T; ++i) {
      CHECK(starts[i] >= 0 && starts[i] <= i % dims.T, "ska: starts[", i / dims.T, ", ", i % dims.T,
            "] = ", starts[i], ", expected 0 <= start <= the token's position");
    }
  }
  return dims;
}

}  // namespace rodimus::cpu::ska
