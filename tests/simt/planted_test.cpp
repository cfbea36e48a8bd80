// The emulator's own proof: each planted fault is found under every schedule, and the kernels
// without a fault give right results and no report. Built twice; what only the race build can see
// is only asked of it.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/simt/device_array.h"
#include "tests/simt/planted.h"
#include "tests/simt/schedules.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

using planted::Bug;
using simt::DeviceArray;
using testing::close;
using testing::to_double;

template <class T>
std::vector<T> random(int64_t count, uint64_t seed) {
  return testing::cast<T>(testing::normal(count, seed));
}

// One rounding to bf16, and a sum of up to 1000 terms in f32.
constexpr double kTolerance = 0x1p-8 + 1000 * 0x1p-24;

::testing::AssertionResult run_rms_norm(Bug bug) {
  constexpr int kRows = 5, kDim = 1000;  // even and odd rows, a last round that is not full
  const std::vector<bf16> x = random<bf16>(kRows * kDim, 1);
  const std::vector<float> w = random<float>(kDim, 2);
  const DeviceArray<bf16> x_device(x), y(x.size());
  const DeviceArray<float> w_device(w), rstd(kRows);
  if (planted::rms_norm(bug, x_device.data(), w_device.data(), y.data(), rstd.data(), kRows, kDim,
                        nullptr) != cudaSuccess) {
    return ::testing::AssertionFailure() << "the launch failed";
  }
  std::vector<double> want;
  for (int row = 0; row < kRows; ++row) {
    double squares = 0;
    for (int i = 0; i < kDim; ++i) squares += std::pow(double(to_f32(x[row * kDim + i])), 2);
    for (int i = 0; i < kDim; ++i) {
      want.push_back(to_f32(x[row * kDim + i]) / std::sqrt(squares / kDim) * w[i]);
    }
  }
  return close(to_double(y.values()), want, kTolerance);
}

::testing::AssertionResult run_transpose(Bug bug) {
  const std::vector<float> in = random<float>(32 * 32, 3);
  const DeviceArray<float> in_device(in), out(in.size());
  if (planted::transpose(bug, in_device.data(), out.data(), nullptr) != cudaSuccess) {
    return ::testing::AssertionFailure() << "the launch failed";
  }
  std::vector<double> want;
  for (int i = 0; i < 32 * 32; ++i) want.push_back(in[i % 32 * 32 + i / 32]);
  return close(to_double(out.values()), want, 0);
}

::testing::AssertionResult run_gemm(Bug bug, int m, int n, int k) {
  const std::vector<bf16> a = random<bf16>(int64_t{m} * k, 4), b = random<bf16>(int64_t{n} * k, 5);
  const DeviceArray<bf16> a_device(a), b_device(b), c(size_t(m) * n);
  if (planted::gemm(bug, a_device.data(), b_device.data(), c.data(), m, n, k, nullptr) !=
      cudaSuccess) {
    return ::testing::AssertionFailure() << "the launch failed";
  }
  std::vector<double> want;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int l = 0; l < k; ++l) sum += double(to_f32(a[i * k + l])) * to_f32(b[j * k + l]);
      want.push_back(sum);
    }
  }
  return close(to_double(c.values()), want, kTolerance);
}

::testing::AssertionResult run_sum_products(Bug bug) {
  constexpr int kSteps = 400;
  // Of one sign: there the cuts of a tensor core add up. 16 equal products are exact in f32.
  const std::vector<bf16> a = testing::cast<bf16>(testing::uniform(kSteps, 6, 1, 2)),
                          b = testing::cast<bf16>(testing::uniform(kSteps, 7, 1, 2));
  const DeviceArray<bf16> a_device(a), b_device(b);
  const DeviceArray<float> sums(16 * 8);
  if (planted::sum_products(bug, a_device.data(), b_device.data(), sums.data(), kSteps, nullptr) !=
      cudaSuccess) {
    return ::testing::AssertionFailure() << "the launch failed";
  }
  double want = 0;
  for (int i = 0; i < kSteps; ++i) want += 16.0 * to_f32(a[i]) * to_f32(b[i]);
  // Rounding errors are independent and add in squares.
  return close(to_double(sums.values()), std::vector<double>(16 * 8, want),
               std::sqrt(kSteps) * 0x1p-24);
}

class UnderSchedule : public ::testing::TestWithParam<simt::NamedConfig> {
 protected:
  void SetUp() override {
    simt::config = GetParam().config;
    simt::clear_reports();
  }
};
INSTANTIATE_TEST_SUITE_P(All, UnderSchedule, ::testing::ValuesIn(simt::all_schedules()),
                         [](const auto& one) { return one.param.name; });

TEST_P(UnderSchedule, CleanKernelsAreRightAndSilent) {
  EXPECT_TRUE(run_rms_norm(Bug::none));
  EXPECT_TRUE(run_transpose(Bug::none));
  EXPECT_TRUE(run_gemm(Bug::none, 130, 72, 200));  // edges on every side
  EXPECT_TRUE(run_gemm(Bug::none, 64, 64, 32));    // one whole tile, one step: empty stages
  EXPECT_TRUE(run_sum_products(Bug::none));
  EXPECT_EQ(simt::report_text(), "");
}

struct Planted {
  Bug bug;
  const char* name;
  const char* kinds;    // any of them; a fault may show in several ways
  bool in_every_build;  // whether it needs no instrumentation
};
const Planted kRmsNorm[] = {
    {Bug::missing_barrier, "missing_barrier", "race uninit", false},
    {Bug::barrier_in_branch, "barrier_in_branch", "divergent-barrier", true},
    {Bug::barrier_in_each_arm, "barrier_in_each_arm", "divergent-barrier", true},
    {Bug::past_global_end, "past_global_end", "global-oob", false},
    {Bug::past_shared_end, "past_shared_end", "shared-oob", false},
    {Bug::unwritten_shared, "unwritten_shared", "uninit", false},
    {Bug::partial_shuffle, "partial_shuffle", "divergent-warp deadlock", true},
    {Bug::two_blocks_one_word, "two_blocks_one_word", "race", false},
};
const Planted kGemm[] = {
    {Bug::short_wait, "short_wait", "race uninit", false},
    {Bug::missing_tile_barrier, "missing_tile_barrier", "race uninit", false},
    {Bug::unguarded_copy, "unguarded_copy", "global-oob", false},
    {Bug::early_prefetch, "early_prefetch", "race uninit", false},
};

// An access outside of an allocation ends the program in the build with sanitizers.
bool ends_the_program(const Planted& planted) {
#if defined(__SANITIZE_ADDRESS__)
  return std::string(planted.kinds).find("oob") != std::string::npos;
#else
  (void)planted;
  return false;
#endif
}

template <class Run>
void expect_found(const Planted& planted, Run run) {
  if (ends_the_program(planted)) {
    EXPECT_DEATH((void)run(), "AddressSanitizer|out of bounds") << planted.name;
    return;
  }
  (void)run();
  if (!planted.in_every_build && !simt::is_race_build()) {
    simt::clear_reports();
    return;
  }
  bool found = false;
  for (const simt::Report& report : simt::reports()) {
    found = found || std::string(planted.kinds).find(report.kind) != std::string::npos;
  }
  EXPECT_TRUE(found) << planted.name << ": no " << planted.kinds << " among the reports:\n"
                     << simt::report_text();
  simt::clear_reports();
}

TEST_P(UnderSchedule, PlantedFaultsAreFound) {
  for (const Planted& planted : kRmsNorm) {
    expect_found(planted, [&] { return run_rms_norm(planted.bug); });
  }
  const Planted missing_syncwarp{Bug::missing_syncwarp, "missing_syncwarp", "race uninit", false};
  expect_found(missing_syncwarp, [&] { return run_transpose(missing_syncwarp.bug); });
  for (const Planted& planted : kGemm) {
    expect_found(planted, [&] { return run_gemm(planted.bug, 130, 72, 200); });
  }
  EXPECT_FALSE(run_sum_products(Bug::long_tensor_sum));  // of numbers: no report, wrong results
}

}  // namespace
}  // namespace rodimus
