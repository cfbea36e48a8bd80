// Casts and sums are exact operations: every bit is compared, at sizes around the vector width and
// the grain of a thread.
#include "kernels/convert.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/parallel.h"
#include "kernels/reference/convert.h"
#include "tests/support/device.h"
#include "tests/support/random.h"

namespace rodimus {

using namespace cpu;
namespace {

using testing::Array;
using testing::backend;
using testing::Backend;
using testing::in;
using testing::kDevice;

// A GPU converts every NaN to the same one; the CPU keeps the upper bits of the payload.
template <class T>
bool same_bits(T a, T b) {
  if (kDevice == Device::cuda && std::isnan(to_f32(a)) && std::isnan(to_f32(b))) return true;
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](T x, T y) { return same_bits(x, y); });
}

constexpr int64_t kSizes[] = {
    0, 1, 7, 8, 9, 16, 17, 33, 1000, kDevice == Device::cuda ? 2053 : 2 * kParallelGrain + 5};

TEST(Convert, EveryBit) {
  for (const int64_t n : kSizes) {
    for (const int threads : testing::thread_counts({1, 2})) {
      Backend exec = backend(threads);
      auto x = testing::cast<float>(testing::normal(n, 1, 100));
      if (n > 4) {
        x[1] = std::numeric_limits<float>::infinity();
        x[2] = -x[1];
        x[3] = std::numeric_limits<float>::quiet_NaN();
        x[4] = 1e-42f;
      }
      Array<bf16> half(n);
      std::vector<bf16> half_want(x.size());
      convert(exec, half.data(), in(x).data(), n);
      reference::convert(half_want.data(), x.data(), n);
      EXPECT_TRUE(same_bits(half.host(), half_want)) << n;
      Array<float> wide(n), copy(n);
      std::vector<float> wide_want(x.size());
      convert(exec, wide.data(), std::as_const(half).data(), n);
      reference::convert(wide_want.data(), half_want.data(), n);
      EXPECT_TRUE(same_bits(wide.host(), wide_want)) << n;
      convert(exec, copy.data(), in(x).data(), n);
      EXPECT_TRUE(same_bits(copy.host(), x)) << n;
    }
  }
}

template <class T>
void check_accumulate() {
  for (const int64_t n : kSizes) {
    for (const int threads : testing::thread_counts({1, 2})) {
      Backend exec = backend(threads);
      const auto x = testing::cast<T>(testing::normal(n, 1));
      auto want = testing::cast<T>(testing::normal(n, 2));
      Array<T> y(want);
      accumulate(exec, y.data(), in(x).data(), n);
      reference::accumulate(want.data(), x.data(), n);
      EXPECT_TRUE(same_bits(y.host(), want)) << n;
    }
  }
}
TEST(Convert, AccumulateF32) { check_accumulate<float>(); }
TEST(Convert, AccumulateBf16) { check_accumulate<bf16>(); }

TEST(Convert, Fill) {
  for (const int64_t n : kSizes) {
    Backend exec = backend(2);
    Array<float> y(n + 1, 3);
    fill(exec, y.data(), -0.5f, n);
    std::vector<float> want(static_cast<size_t>(n) + 1, -0.5f);
    want.back() = 3;
    EXPECT_TRUE(same_bits(y.host(), want)) << n;
  }
}

// The ranges of parallel_for are disjoint and cover everything, for any grain.
TEST(Parallel, CoversOnce) {
  for (const int64_t n : {0, 1, 15, 16, 17, 63, 64, 65, 1000, 4096}) {
    for (const int64_t grain : {1, 3, 100}) {
      for (const int threads : {1, 2, 3, 7}) {
        std::vector<int> seen(static_cast<size_t>(n));
        parallel_for(Cpu{threads}, n, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(n), 1)) << n << ' ' << threads;
      }
    }
  }
}

TEST(Parallel, SumOverRowsVisitsEveryRowOnceAndSkipsNull) {
  for (const int64_t rows : {0, 1, 15, 16, 33, 1023, 1024, 5000}) {
    float sum[2] = {1, 1};
    sum_over_rows(Cpu{2}, rows, {{sum, 2}, {nullptr, 1}},
                  [&](int64_t begin, int64_t end, float* partial) {
                    for (int64_t r = begin; r < end; ++r) {
                      partial[0] += 1;
                      partial[1] += static_cast<float>(r % 7);
                      partial[2] += 1;
                    }
                  });
    float want = 1;
    for (int64_t r = 0; r < rows; ++r) want += static_cast<float>(r % 7);
    EXPECT_EQ(sum[0], static_cast<float>(rows + 1));
    EXPECT_EQ(sum[1], want);
  }
}

}  // namespace
}  // namespace rodimus
