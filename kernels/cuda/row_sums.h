// Sums over rows without atomics: each block of a kernel adds its range of rows into a line of
// partial sums, a second kernel adds the lines. The number of blocks depends on the rows alone, so
// the bits are the same on every GPU.
#pragma once

#include <algorithm>

#include "kernels/exec.h"

namespace rodimus::cuda {

// Few rows make few blocks; many make enough for four on each of 132 multiprocessors. The lines
// then are at most 512 times as long as a row.
inline int64_t row_blocks(int64_t rows) { return std::clamp<int64_t>(rows / 4, 1, 512); }

// out[j] += lines[0, j] + lines[1, j] + ..., j < width, in a fixed order. lines (count, stride)
// f32.
void add_lines(Cuda&, float* out, const float* lines, int64_t count, int64_t stride, int64_t width);

}  // namespace rodimus::cuda
