// Threading for CPU kernels: parallel loops over contiguous ranges, and sums over rows whose bits
// do not depend on the number of threads. Loop bodies must not throw: check inputs before the
// region.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "kernels/exec.h"
#include "kernels/memory.h"

namespace rodimus::cpu {

// Elements per thread below which starting one costs more than it saves.
inline constexpr int64_t kParallelGrain = 16384;

// Calls f(begin, end) on disjoint ranges that cover [0, n), at most one per thread and none shorter
// than `grain` (except the last). Parts are equal, so each thread works on the same memory in every
// pass.
template <class F>
void parallel_for(const Cpu& exec, int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t parts = std::clamp<int64_t>(n / grain, 1, std::max(exec.threads, 1));
  if (parts == 1) {
    f(int64_t{0}, n);
    return;
  }
  // Multiples of 16 elements, so that neighbouring ranges do not share a cache line.
  const int64_t step = n >= 64 * parts ? (n + parts * 16 - 1) / (parts * 16) * 16 : 1;
#pragma omp parallel for schedule(static) num_threads(static_cast <int>(parts))
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = step > 1 ? part * step : n * part / parts;
    const int64_t end = step > 1 ? begin + step : n * (part + 1) / parts;
    if (begin < n) f(begin, std::min(n, end));
  }
}

// The same over rows of `row_elements` each, with the grain in elements.
template <class F>
void parallel_rows(const Cpu& exec, int64_t rows, int64_t row_elements, F&& f) {
  parallel_for(exec, rows, kParallelGrain / std::max<int64_t>(row_elements, 1) + 1, f);
}

// Calls f(i) for i in [0, n), handed out one at a time: for a few large, uneven pieces.
template <class F>
void parallel_tasks(const Cpu& exec, int64_t n, F&& f) {
  const int threads = static_cast<int>(std::clamp<int64_t>(n, 1, std::max(exec.threads, 1)));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < n; ++i) f(i);
}

// Workspace for the bodies of parallel loops: `count` elements for each thread, allocated here
// because an Error inside a region would end the program. No two threads share a cache line.
template <class T>
class PerThread {
 public:
  PerThread(const Cpu& exec, int64_t count)
      : threads_(std::max(exec.threads, 1)),
        stride_((count + kLine - 1) / kLine * kLine),
        storage_(threads_ * stride_) {}
  // The size of one, for ScratchBytes.
  static int64_t bytes(const Cpu& exec, int64_t count) {
    return std::max(exec.threads, 1) * ((count + kLine - 1) / kLine * kLine) *
           static_cast<int64_t>(sizeof(T));
  }
  // The calling thread's part. With one thread the loops above open no region, and
  // omp_get_thread_num() would give the number in an enclosing region.
  T* mine() const { return storage_.data() + (threads_ == 1 ? 0 : omp_get_thread_num() * stride_); }

 private:
  // Two cache lines, because they are fetched in pairs.
  static constexpr int64_t kLine = 128 / sizeof(T);
  int64_t threads_, stride_;
  memory::Scratch<T> storage_;
};

// One result of sum_over_rows: out[j] += sum over rows, j < width. out may be null (not computed).
struct RowSum {
  float* out;
  int64_t width;
};

// How sum_over_rows divides its work: at most 64 blocks, a number that depends only on `rows`.
struct RowBlocks {
  RowBlocks(int64_t rows, int64_t width)
      : count(rows <= 0 ? 0 : std::clamp<int64_t>(rows / 16, 1, 64)),
        stride((width + 15) / 16 * 16) {}
  int64_t count, stride;
  int64_t floats() const { return count * stride; }
  int64_t bytes() const { return floats() * static_cast<int64_t>(sizeof(float)); }
};

// f(begin, end, partial) adds the rows [begin, end), ascending, into `partial`, which is zeroed and
// laid out as the widths of `sums` in order. The partial sums of the blocks are added in ascending
// order.
template <class F>
void sum_over_rows(const Cpu& exec, int64_t rows, std::initializer_list<RowSum> sums, F&& f) {
  if (rows <= 0) return;
  int64_t width = 0;
  for (const RowSum& sum : sums) width += sum.width;
  const RowBlocks cut(rows, width);
  const int64_t stride = cut.stride, blocks = cut.count;
  const memory::Scratch<float> partials(cut.floats());
  parallel_tasks(exec, blocks, [&](int64_t block) {
    float* partial = partials.data() + block * stride;
    std::fill_n(partial, width, 0.0f);
    f(rows * block / blocks, rows * (block + 1) / blocks, partial);
  });
  int64_t offset = 0;
  for (const RowSum& sum : sums) {
    if (sum.out != nullptr) {
      const float* first = partials.data() + offset;
      parallel_for(exec, sum.width, kParallelGrain / blocks, [&](int64_t begin, int64_t end) {
        for (int64_t block = 0; block < blocks; ++block) {
          const float* partial = first + block * stride;
          float* out = sum.out;
#pragma omp simd
          for (int64_t j = begin; j < end; ++j) out[j] += partial[j];
        }
      });
    }
    offset += sum.width;
  }
}

}  // namespace rodimus::cpu
