// The kernels of barrier_sample with all their barriers; delete_barriers_test.py takes them away.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/simt/barrier_sample/sample.h"
#include "tests/simt/device_array.h"
#include "tests/simt/schedules.h"

namespace rodimus::barrier_sample {
namespace {

class BarrierSample : public ::testing::TestWithParam<simt::NamedConfig> {
 protected:
  BarrierSample() : in(64) {
    std::iota(in.begin(), in.end(), 0.0f);
    simt::config = GetParam().config;
    simt::clear_reports();
  }
  std::vector<float> in;
};

TEST_P(BarrierSample, ReversePlusSum) {
  const simt::DeviceArray<float> x(in), y(in.size());
  ASSERT_EQ(reverse_plus_sum(x.data(), y.data(), nullptr), cudaSuccess);
  for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(y.values()[i], in[63 - i] + 2016);
  EXPECT_EQ(simt::report_text(), "");
}

TEST_P(BarrierSample, Twice) {
  const simt::DeviceArray<float> x(in), y(in.size());
  ASSERT_EQ(twice(x.data(), y.data(), nullptr), cudaSuccess);
  for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(y.values()[i], 2 * in[i]);
  EXPECT_EQ(simt::report_text(), "");
}

INSTANTIATE_TEST_SUITE_P(Schedules, BarrierSample, ::testing::ValuesIn(simt::all_schedules()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace rodimus::barrier_sample
