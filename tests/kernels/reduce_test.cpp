// Reductions: values compared with long double, bits for different numbers of threads, sensitivity
// of the hash.
#include "kernels/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "kernels/reference/reduce.h"
#include "tests/support/device.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

using testing::backend;
using testing::Backend;
using testing::in;
using testing::kDevice;

constexpr int64_t kSizes[] = {
    0, 1, 7, 9, 1000, kReduceBlock - 1, kReduceBlock, 2 * kReduceBlock + 3};

TEST(Reduce, SumsInDouble) {
  for (const int64_t n : kSizes) {
    const auto x = testing::cast<float>(testing::normal(n, 1));
    Backend one = backend(1), two = backend(2);
    const double squares = sum_of_squares(one, in(x).data(), n);
    const double total = sum(one, in(x).data(), n);
    const auto want = static_cast<double>(reference::sum_of_squares(x.data(), n));
    // n additions in double.
    const double eps = 0x1p-53 * static_cast<double>(n + 1);
    EXPECT_NEAR(squares, want, eps * want) << n;
    EXPECT_NEAR(total, static_cast<double>(reference::sum(x.data(), n)), eps * (want + 1)) << n;
    EXPECT_EQ(squares, sum_of_squares(two, in(x).data(), n));
    EXPECT_EQ(total, sum(two, in(x).data(), n));
  }
}

// Three parts in two arrangements, one with a gap; the second part is longer than a block.
TEST(Reduce, PartsSumToTheSameBitsWhereverTheyLie) {
  const int64_t sizes[] = {37, 2 * kReduceBlock + 5, 1000}, room = 2 * kReduceBlock + 2000;
  const int64_t one_way[] = {0, 40, 2 * kReduceBlock + 48};
  const int64_t other_way[] = {2 * kReduceBlock + 1076, 1064, 4};
  const auto values = testing::cast<float>(testing::normal(room, 5));
  Backend one = backend(1), two = backend(2);
  const auto sum_of = [&](Backend& exec, const int64_t* begins) {
    std::vector<float> x(static_cast<size_t>(room), 3e4f);  // shows up if a gap is counted
    std::vector<ArrayPart> parts;
    for (int i = 0; i < 3; ++i) {
      std::copy_n(values.begin() + one_way[i], sizes[i], x.begin() + begins[i]);
      parts.push_back({begins[i], sizes[i]});
    }
    return sum_of_squares(exec, in(x).data(), parts);
  };
  double want = 0, plain = 0;
  for (int i = 0; i < 3; ++i) {
    const std::vector<float> part(values.begin() + one_way[i],
                                  values.begin() + one_way[i] + sizes[i]);
    want += static_cast<double>(reference::sum_of_squares(part.data(), sizes[i]));
    for (int64_t at = 0; at < sizes[i]; at += kReduceBlock) {
      const std::vector<float> block(part.begin() + at,
                                     part.begin() + std::min(at + kReduceBlock, sizes[i]));
      plain += sum_of_squares(one, in(block).data(), static_cast<int64_t>(block.size()));
    }
  }
  EXPECT_NEAR(sum_of(one, one_way), want, 0x1p-53 * static_cast<double>(room) * want);
  EXPECT_EQ(sum_of(one, one_way), plain) << "block by block";
  EXPECT_EQ(sum_of(one, one_way), sum_of(two, other_way));
  EXPECT_EQ(sum_of_squares(one, in(values).data(), std::span<const ArrayPart>()), 0);
  const ArrayPart crooked{2, 5};
  EXPECT_THROW(sum_of_squares(one, in(values).data(), {&crooked, 1}), Error);
}

TEST(Reduce, SquaresDoNotOverflowAndNanComesThrough) {
  Backend exec = backend(2);
  std::vector<float> x(static_cast<size_t>(kReduceBlock + 5), 1);
  x[7] = 1e30f;
  EXPECT_NEAR(sum_of_squares(exec, in(x).data(), kReduceBlock + 5), 1e60, 1e54);
  x.back() = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isinf(sum_of_squares(exec, in(x).data(), kReduceBlock + 5)));
  EXPECT_TRUE(std::isinf(sum(exec, in(x).data(), kReduceBlock + 5)));
  x[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(sum_of_squares(exec, in(x).data(), kReduceBlock + 5)));
  EXPECT_TRUE(std::isnan(sum(exec, in(x).data(), kReduceBlock + 5)));
}

TEST(Reduce, HashSeesEveryBitAndIgnoresThreads) {
  Backend one = backend(1), two = backend(2);
  const int64_t bytes = 4 * kReduceBlock + 13;  // a second, short block and a partial word
  std::vector<unsigned char> data(static_cast<size_t>(bytes), 0);
  const uint64_t first = hash_bytes(one, in(data).data(), bytes);
  EXPECT_EQ(first, hash_bytes(two, in(data).data(), bytes));
  std::set<uint64_t> seen = {first};
  size_t changes = 0;
  // The emulator takes milliseconds per block: there, flip one bit at each place, a different one
  // each time.
  int turn = 0;
  for (const int64_t at : {int64_t{0}, int64_t{7}, int64_t{8}, int64_t{1000}, 4 * kReduceBlock - 1,
                           4 * kReduceBlock, bytes - 1}) {
    for (int bit = 0; bit < 8; ++bit) {
      if (kDevice == Device::cuda && bit != 7 - turn) continue;
      data[static_cast<size_t>(at)] = static_cast<unsigned char>(1u << bit);
      seen.insert(hash_bytes(two, in(data).data(), bytes));
      ++changes;
    }
    ++turn;
    data[static_cast<size_t>(at)] = 0;
  }
  // Lengths matter even if the bytes are zeros.
  for (const int64_t length : {int64_t{0}, int64_t{1}, int64_t{8}, bytes - 1}) {
    seen.insert(hash_bytes(one, in(data).data(), length));
    ++changes;
  }
  EXPECT_EQ(seen.size(), changes + 1);
  EXPECT_EQ(first, hash_bytes(one, in(data).data(), bytes));
}

// Ranks compare this number, so every backend must compute the same one.
TEST(Reduce, EveryBackendHashesTheSame) {
  const auto x = testing::cast<float>(testing::normal(kReduceBlock + 77, 4));
  Cpu cpu{1};
  Backend exec = backend();
  for (const int64_t bytes : {int64_t{0}, int64_t{3}, int64_t{8}, int64_t{261},
                              int64_t{4 * kReduceBlock}, int64_t{4 * kReduceBlock + 305}}) {
    EXPECT_EQ(hash_bytes(exec, in(x).data(), bytes), hash_bytes(cpu, x.data(), bytes)) << bytes;
  }
}

// The top bit of a word stays at the top under multiplication: two of them must not cancel.
TEST(Reduce, HashSeesTwoFlippedSigns) {
  Backend exec = backend(1);
  std::vector<float> x(100, 1);
  const uint64_t before = hash_bytes(exec, in(x).data(), 400);
  x[1] = x[31] = -1;
  EXPECT_NE(before, hash_bytes(exec, in(x).data(), 400));
}

TEST(Reduce, HashSeesSwappedBlocks) {
  Backend exec = backend(2);
  std::vector<float> x(static_cast<size_t>(2 * kReduceBlock), 1);
  std::fill(x.begin() + kReduceBlock, x.end(), 2.0f);
  const auto bytes = static_cast<int64_t>(x.size() * sizeof(float));
  const uint64_t before = hash_bytes(exec, in(x).data(), bytes);
  std::swap_ranges(x.begin(), x.begin() + kReduceBlock, x.begin() + kReduceBlock);
  EXPECT_NE(before, hash_bytes(exec, in(x).data(), bytes));
}

}  // namespace
}  // namespace rodimus
