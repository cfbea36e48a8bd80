// Small f32 matrix products whose operands are in cache: the inner loops of the chunked kernels
// (DDTS, attention), where a library call of ~1 us per product would cost more than the product.
//
//   c (m x n) = start + a (m x k) b (k x n),  row-major, leading dimensions in elements
//
// The result is computed in tiles of kTileRows x kTileCols that stay in registers over all of k:
// per step of k two vectors of b and kTileRows broadcasts of a feed 2 * kTileRows multiply-adds.
// Nothing is packed: b is read in panels of kTileCols columns, each of which should stay in the L1
// cache (k <= 128 does), so give b a leading dimension that is not a multiple of 64 elements, or
// its rows will compete for the same cache sets. Sums over k run in ascending order whatever m and
// n are: the bits of an element do not depend on the shape of the product.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include "kernels/cpu/simd.h"

namespace rodimus::cpu::micro {

// 12 of 16 or 16 of 32 vector registers hold the sums.
inline constexpr int kTileRows = simd::kLanes == 16 ? 8 : 6;
inline constexpr int kTileCols = 2 * simd::kLanes;

// How a is stored: kRows a[i * lda + p], kColumns a[p * lda + i] (that is, the product uses a^T).
enum class ALayout { kRows, kColumns };

// The initial value of c.
struct Zero {};     // c = a b
struct Keep {};     // c += a b
struct ScaleRows {  // c = diag(scale) from + a b; scale (m); from (m x n), may be c
  const float* scale;
  const float* from;
  int64_t ld_from;
};

struct Range {
  int64_t begin, end;
};

namespace detail {

// One tile: R <= kTileRows rows, kTileCols columns. a points at element (first row, p = 0).
template <int R, ALayout layout, class Start>
inline void tile(float* c, int64_t ldc, const float* a, int64_t lda, const float* b, int64_t ldb,
                 Range k, Start start) {
  using simd::Vec;
  constexpr int kLanes = simd::kLanes;
  Vec sum[R][2];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    if constexpr (std::is_same_v<Start, Zero>) {
      sum[i][0] = sum[i][1] = Vec{};
    } else if constexpr (std::is_same_v<Start, ScaleRows>) {
      sum[i][0] = start.scale[i] * simd::load(start.from + i * start.ld_from);
      sum[i][1] = start.scale[i] * simd::load(start.from + i * start.ld_from + kLanes);
    } else {
      sum[i][0] = simd::load(c + i * ldc);
      sum[i][1] = simd::load(c + i * ldc + kLanes);
    }
  }
  for (int64_t p = k.begin; p < k.end; ++p) {
    const Vec b0 = simd::load(b + p * ldb), b1 = simd::load(b + p * ldb + kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const float x = layout == ALayout::kRows ? a[i * lda + p] : a[p * lda + i];
      sum[i][0] += x * b0;
      sum[i][1] += x * b1;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    simd::store(c + i * ldc, sum[i][0]);
    simd::store(c + i * ldc + kLanes, sum[i][1]);
  }
}

// A tile of `rows` rows, 1 <= rows <= R.
template <int R, ALayout layout, class Start>
inline void tile_of(int64_t rows, float* c, int64_t ldc, const float* a, int64_t lda,
                    const float* b, int64_t ldb, Range k, Start start) {
  if (rows == R) {
    tile<R, layout>(c, ldc, a, lda, b, ldb, k, start);
  } else if constexpr (R > 1) {
    tile_of<R - 1, layout>(rows, c, ldc, a, lda, b, ldb, k, start);
  }
}

}  // namespace detail

// c = start + a b for a whole number of column tiles: n is rounded up to a multiple of kTileCols,
// so b and c must have that many readable (writable) columns. k_of(first_row, rows) -> Range gives
// the part of k that matters for a strip of rows; products with triangular a use it to skip the
// zeros.
template <ALayout layout, class Start, std::invocable<int64_t, int64_t> KOf>
void product(float* c, int64_t ldc, const float* a, int64_t lda, const float* b, int64_t ldb,
             int64_t m, int64_t n, KOf&& k_of, Start start) {
  for (int64_t col = 0; col < n; col += kTileCols) {
    for (int64_t row = 0; row < m; row += kTileRows) {
      const int64_t rows = std::min<int64_t>(kTileRows, m - row);
      Start strip = start;
      if constexpr (std::is_same_v<Start, ScaleRows>) {
        strip.scale += row;
        strip.from += row * strip.ld_from + col;
      }
      const float* a_strip = a + (layout == ALayout::kRows ? row * lda : row);
      detail::tile_of<kTileRows, layout>(rows, c + row * ldc + col, ldc, a_strip, lda, b + col, ldb,
                                         k_of(row, rows), strip);
    }
  }
}
template <ALayout layout, class Start>
void product(float* c, int64_t ldc, const float* a, int64_t lda, const float* b, int64_t ldb,
             int64_t m, int64_t n, int64_t k, Start start) {
  product<layout>(
      c, ldc, a, lda, b, ldb, m, n,
      [k](int64_t, int64_t) {
        return Range{0, k};
      },
      start);
}

namespace detail {

// Swaps the off-diagonal halves of every 2w x 2w block; done for w = 1, 2, .. kLanes / 2 it
// transposes.
template <int w>
inline void swap_blocks(simd::Vec* row) {
  using simd::kLanes;
  simd::VecU low, high;
  for (int e = 0; e < kLanes; ++e) {
    low[e] = static_cast<uint32_t>((e & w) ? kLanes + e - w : e);
    high[e] = static_cast<uint32_t>((e & w) ? kLanes + e : e + w);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & w) continue;
    const simd::Vec x = row[i], y = row[i + w];
    row[i] = __builtin_shuffle(x, y, low);
    row[i + w] = __builtin_shuffle(x, y, high);
  }
}

}  // namespace detail

// Transposes the kLanes x kLanes matrix whose rows are row[0] .. row[kLanes - 1].
inline void transpose_lanes(simd::Vec* row) {
  detail::swap_blocks<1>(row);
  detail::swap_blocks<2>(row);
  if constexpr (simd::kLanes >= 8) detail::swap_blocks<4>(row);
  if constexpr (simd::kLanes >= 16) detail::swap_blocks<8>(row);
}

// y (cols x rows, leading dimension ldy) = x^T for x (rows x cols, ldx). Both sides are rounded up
// to a multiple of kLanes: x must be readable and y writable that far.
inline void transpose(float* y, int64_t ldy, const float* x, int64_t ldx, int64_t rows,
                      int64_t cols) {
  using simd::kLanes;
  for (int64_t i = 0; i < rows; i += kLanes) {
    for (int64_t j = 0; j < cols; j += kLanes) {
      simd::Vec block[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) block[r] = simd::load(x + (i + r) * ldx + j);
      transpose_lanes(block);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) simd::store(y + (j + r) * ldy + i, block[r]);
    }
  }
}

}  // namespace rodimus::cpu::micro
