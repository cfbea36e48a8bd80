// The emulated twins of ptx.cuh against the PTX ISA. The tables below state which element of a
// matrix each register of each lane holds, as the ISA 9.0 writes them ("Matrix Fragments for
// mma.m16n8k16", "... mma.m16n8k8", "ldmatrix"), element by element; the twins compute it another
// way.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/dtype.h"
#include "tests/simt/device_array.h"
#include "tests/simt/schedules.h"
#include "tests/simt/wrappers.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

using simt::DeviceArray;
using testing::close;

struct Position {
  int row, column;
};

// "groupID = %laneid >> 2; threadID_in_group = %laneid % 4"
int group_id(int lane) { return lane >> 2; }
int thread_in_group(int lane) { return lane % 4; }

// m16n8k16, .bf16, A: a0 ... a7
Position a_bf16(int lane, int i) {
  return {
      (0 <= i && i < 2) || (4 <= i && i < 6) ? group_id(lane) : group_id(lane) + 8,
      i < 4 ? thread_in_group(lane) * 2 + (i & 0x1) : thread_in_group(lane) * 2 + (i & 0x1) + 8};
}
// B: b0 ... b3
Position b_bf16(int lane, int i) {
  return {i < 2 ? thread_in_group(lane) * 2 + (i & 0x1) : thread_in_group(lane) * 2 + (i & 0x1) + 8,
          group_id(lane)};
}
// C and D of both shapes: c0 ... c3
Position accumulator(int lane, int i) {
  return {i < 2 ? group_id(lane) : group_id(lane) + 8, thread_in_group(lane) * 2 + (i & 0x1)};
}
// m16n8k8, .tf32, A: a0 ... a3
Position a_tf32(int lane, int i) {
  return {i == 0 || i == 2 ? group_id(lane) : group_id(lane) + 8,
          i == 0 || i == 1 ? thread_in_group(lane) : thread_in_group(lane) + 4};
}
// B: b0, b1
Position b_tf32(int lane, int i) {
  return {i == 0 ? thread_in_group(lane) : thread_in_group(lane) + 4, group_id(lane)};
}

class Fragments : public ::testing::Test {
 protected:
  void SetUp() override {
    simt::config = {};
    simt::clear_reports();
  }
  void TearDown() override { EXPECT_EQ(simt::report_text(), ""); }
};

std::vector<double> to_double_of_bf16(const std::vector<double>& x) {
  return testing::to_double(testing::cast<bf16>(x));
}

// The product and the sum of the test, in double: a is 16 x k, b is k x 8, c is 16 x 8.
std::vector<double> multiply_add(const std::vector<double>& a, const std::vector<double>& b,
                                 const std::vector<double>& c, int k) {
  std::vector<double> d = c;
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      for (int l = 0; l < k; ++l) d[i * 8 + j] += a[i * k + l] * b[l * 8 + j];
    }
  }
  return d;
}

std::vector<float> scatter_accumulator(const std::vector<double>& c) {
  std::vector<float> registers;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Position p = accumulator(lane, i);
      registers.push_back(static_cast<float>(c[p.row * 8 + p.column]));
    }
  }
  return registers;
}
std::vector<double> gather_accumulator(const std::vector<float>& registers) {
  std::vector<double> d(16 * 8, std::numeric_limits<double>::quiet_NaN());
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Position p = accumulator(lane, i);
      d[p.row * 8 + p.column] = registers[lane * 4 + i];
    }
  }
  return d;
}

TEST_F(Fragments, MmaBf16) {
  const auto a = to_double_of_bf16(testing::normal(16 * 16, 1));
  const auto b = to_double_of_bf16(testing::normal(16 * 8, 2));
  const auto c = to_double_of_bf16(testing::normal(16 * 8, 3));
  std::vector<uint32_t> a_registers, b_registers;
  auto pair = [](double low, double high) {  // element i even: the lower half of the register
    return uint32_t{bf16(float(low)).bits} | uint32_t{bf16(float(high)).bits} << 16;
  };
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 8; i += 2) {
      const Position low = a_bf16(lane, i), high = a_bf16(lane, i + 1);
      a_registers.push_back(pair(a[low.row * 16 + low.column], a[high.row * 16 + high.column]));
    }
    for (int i = 0; i < 4; i += 2) {
      const Position low = b_bf16(lane, i), high = b_bf16(lane, i + 1);
      b_registers.push_back(pair(b[low.row * 8 + low.column], b[high.row * 8 + high.column]));
    }
  }
  const DeviceArray<uint32_t> a_device(a_registers), b_device(b_registers);
  const DeviceArray<float> d_device(scatter_accumulator(c));
  ASSERT_EQ(wrappers::mma_bf16(d_device.data(), a_device.data(), b_device.data()), cudaSuccess);
  // 17 terms lose up to 2^-25 of the largest each, which is below twice the rms of the sums; the
  // sum up to 2^-23 of itself.
  EXPECT_TRUE(
      close(gather_accumulator(d_device.values()), multiply_add(a, b, c, 16), 19 * 0x1p-24));
}

TEST_F(Fragments, MmaTf32) {
  auto a = testing::normal(16 * 8, 4), b = testing::normal(8 * 8, 5);
  const auto c = to_double_of_bf16(testing::normal(16 * 8, 6));
  std::vector<uint32_t> a_registers, b_registers;
  // 13 bits of the mantissa that the instruction must not look at.
  auto operand = [](double x) { return std::bit_cast<uint32_t>(float(x)) | 0x1fffu; };
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Position p = a_tf32(lane, i);
      a_registers.push_back(operand(a[p.row * 8 + p.column]));
    }
    for (int i = 0; i < 2; ++i) {
      const Position p = b_tf32(lane, i);
      b_registers.push_back(operand(b[p.row * 8 + p.column]));
    }
  }
  auto cut = [](double& x) {
    x = std::bit_cast<float>(std::bit_cast<uint32_t>(float(x)) & 0xffffe000u);
  };
  for (double& x : a) cut(x);
  for (double& x : b) cut(x);
  const DeviceArray<uint32_t> a_device(a_registers), b_device(b_registers);
  const DeviceArray<float> d_device(scatter_accumulator(c));
  ASSERT_EQ(wrappers::mma_tf32(d_device.data(), a_device.data(), b_device.data()), cudaSuccess);
  EXPECT_TRUE(close(gather_accumulator(d_device.values()), multiply_add(a, b, c, 8), 11 * 0x1p-24));
}

// Each element of a matrix of 16-bit words is its own number: 100 * matrix + 10 * row + column.
uint32_t element(int matrix, int row, int column) {
  return static_cast<uint32_t>(100 * matrix + 10 * row + column);
}

TEST_F(Fragments, Ldmatrix) {
  std::vector<uint32_t> tile;  // row r of matrix m in the 16 bytes at (8 m + r) * 16
  for (int m = 0; m < 4; ++m) {
    for (int r = 0; r < 8; ++r) {
      for (int c = 0; c < 8; c += 2) tile.push_back(element(m, r, c) | element(m, r, c + 1) << 16);
    }
  }
  const DeviceArray<uint32_t> tile_device(tile);
  for (const int matrices : {2, 4}) {
    // "threads 0-7 give the addresses of the first matrix, 8-15 of the second, ..."; here the
    // matrices lie in reverse order. The other lanes' addresses are ignored.
    std::vector<uint32_t> offsets;
    for (int lane = 0; lane < 32; ++lane) {
      const int matrix = lane / 8 < matrices ? matrices - 1 - lane / 8 : 0;
      offsets.push_back(static_cast<uint32_t>((matrix * 8 + lane % 8) * 16));
    }
    const DeviceArray<uint32_t> offsets_device(offsets);
    for (const bool transposed : {false, true}) {
      const DeviceArray<uint32_t> out(32 * matrices);
      ASSERT_EQ(wrappers::ldmatrix(matrices, transposed, out.data(), tile_device.data(),
                                   offsets_device.data()),
                cudaSuccess);
      const std::vector<uint32_t> got = out.values();
      for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < matrices; ++i) {
          // "Each thread receives a fragment of row laneid / 4: elements laneid % 4 * 2 and the
          // next"; .trans: "the matrix is loaded in column-major format".
          const int m = matrices - 1 - i, row = lane / 4, column = lane % 4 * 2;
          const uint32_t want = transposed
                                    ? element(m, column, row) | element(m, column + 1, row) << 16
                                    : element(m, row, column) | element(m, row, column + 1) << 16;
          EXPECT_EQ(got[lane * matrices + i], want)
              << "x" << matrices << (transposed ? ".trans" : "") << " lane " << lane << " r" << i;
        }
      }
    }
  }
}

TEST_F(Fragments, AsynchronousCopiesFillWithZeros) {
  for (const auto landing : {simt::Landing::late, simt::Landing::early}) {
    simt::config.landing = landing;
    for (const int bytes : {4, 8, 16}) {
      const int words = bytes / 4;
      std::vector<uint32_t> in, counts, want;
      for (int lane = 0; lane < 32; ++lane) {
        const uint32_t count = static_cast<uint32_t>(lane % (words + 1) * 4);
        counts.push_back(count);
        for (int i = 0; i < words; ++i) {
          in.push_back(static_cast<uint32_t>(lane * 16 + i + 1));
          want.push_back(static_cast<uint32_t>(i * 4) < count ? in.back() : 0);
        }
      }
      const DeviceArray<uint32_t> in_device(in), counts_device(counts), out(in.size());
      ASSERT_EQ(wrappers::cp_async(bytes, out.data(), in_device.data(), counts_device.data()),
                cudaSuccess);
      EXPECT_EQ(out.values(), want) << bytes << " bytes";
    }
    std::vector<uint32_t> in;
    for (uint32_t i = 0; i < 64; ++i) in.push_back(i * i + 1);
    const DeviceArray<uint32_t> in_device(in), out(in.size());
    ASSERT_EQ(wrappers::cp_groups(out.data(), in_device.data()), cudaSuccess);
    EXPECT_EQ(out.values(), in);
  }
}

TEST_F(Fragments, VectorAccessesKeepTheBytes) {
  std::vector<uint32_t> in;
  for (uint32_t i = 0; i < 224; ++i) in.push_back(i * 0x01010101u + 7);
  const DeviceArray<uint32_t> in_device(in), first(in.size()), second(in.size());
  ASSERT_EQ(wrappers::copy_through_registers(first.data(), in_device.data()), cudaSuccess);
  ASSERT_EQ(wrappers::copy_through_shared(second.data(), in_device.data()), cudaSuccess);
  EXPECT_EQ(first.values(), in);
  EXPECT_EQ(second.values(), in);
}

TEST_F(Fragments, ApproximateFunctions) {
  using wrappers::Function;
  const auto x = testing::cast<float>(testing::uniform(32, 7, 0.01, 20));
  const DeviceArray<float> x_device(x), y(x.size());
  const std::pair<Function, double (*)(double)> cases[] = {
      {Function::ex2, [](double v) { return std::exp2(v); }},
      {Function::lg2, [](double v) { return std::log2(v); }},
      {Function::rcp, [](double v) { return 1 / v; }}};
  for (const auto& [which, truth] : cases) {
    ASSERT_EQ(wrappers::function(which, y.data(), x_device.data()), cudaSuccess);
    std::vector<double> want;
    for (const float v : x) want.push_back(truth(v));
    EXPECT_TRUE(close(testing::to_double(y.values()), want, 2 * 0x1p-24));
  }
}

TEST_F(Fragments, SpecialValues) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> x(32, 1.0f);
  x[0] = -kInfinity;
  x[1] = kInfinity;
  x[2] = -140.0f;    // 2^x is subnormal: flushed
  x[3] = 0x1p-140f;  // subnormal: taken for zero
  const DeviceArray<float> x_device(x), y(x.size());
  ASSERT_EQ(wrappers::function(wrappers::Function::ex2, y.data(), x_device.data()), cudaSuccess);
  EXPECT_EQ((std::vector<float>{y.data(), y.data() + 4}), (std::vector<float>{0, kInfinity, 0, 1}));
  ASSERT_EQ(wrappers::function(wrappers::Function::rcp, y.data(), x_device.data()), cudaSuccess);
  EXPECT_EQ(y.values()[3], kInfinity);
}

TEST_F(Fragments, Tf32RoundsToTheNearestTiesAway) {
  std::vector<float> x(32, 1.0f);
  x[0] = 1 + 0x1p-11f;             // a tie: away from zero
  x[1] = -(1 + 0x1p-11f);          // the same below
  x[2] = 1 + 0x1p-11f - 0x1p-23f;  // just below the tie
  x[3] = 1 + 3 * 0x1p-11f;         // a tie above an odd number
  x[4] = std::numeric_limits<float>::infinity();
  const std::array<float, 5> want = {1 + 0x1p-10f, -(1 + 0x1p-10f), 1, 1 + 0x1p-9f, x[4]};
  const DeviceArray<float> x_device(x);
  const DeviceArray<uint32_t> y(x.size());
  ASSERT_EQ(wrappers::to_tf32(y.data(), x_device.data()), cudaSuccess);
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(std::bit_cast<float>(y.values()[i]), want[i]) << i;
  }
}

TEST_F(Fragments, NamedBarriersUnderEverySchedule) {
  std::vector<int> in, want;
  for (int i = 0; i < 128; ++i) in.push_back(i * 3 + 1);
  for (int i = 0; i < 128; ++i) want.push_back(in[i / 64 * 64 + 63 - i % 64]);
  for (const simt::NamedConfig& one : simt::all_schedules()) {
    simt::config = one.config;
    const DeviceArray<int> in_device(in), out(in.size());
    ASSERT_EQ(wrappers::bar_sync(out.data(), in_device.data()), cudaSuccess);
    EXPECT_EQ(out.values(), want) << one.name;
  }
}

}  // namespace
}  // namespace rodimus
