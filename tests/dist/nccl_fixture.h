// For tests of the NCCL communicator: arrays in GPU memory, and the communicator under each policy
// of the fake runtime (tests/fakecuda). Compiled with RODIMUS_TEST_REAL_GPU there is no fake.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "kernels/device.h"
#include "kernels/memory.h"
#ifndef RODIMUS_TEST_REAL_GPU
#include "tests/fakecuda/work.h"
#include "tests/simt/emulator.h"
#endif
#include "tests/support/mpi_main.h"
#include "tests/support/random.h"

namespace rodimus::testing {

using memory::Scratch;

inline std::vector<float> contribution(int64_t n, int rank) {
  return cast<float>(normal(n, 10 + static_cast<uint64_t>(rank)));
}

inline Scratch<float> on_gpu(Cuda& gpu, const std::vector<float>& values) {
  const auto n = static_cast<int64_t>(values.size());
  Scratch<float> array(n, Device::cuda);
  memory::upload(gpu, array.data(), values.data(), n * static_cast<int64_t>(sizeof(float)));
  return array;
}

inline std::vector<float> on_host(Cuda& gpu, const Scratch<float>& array, int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  memory::download(gpu, values.data(), array.data(), n * static_cast<int64_t>(sizeof(float)));
  return values;
}

// Whether `got` is factor times the sum of the ranks' contributions. Each of the world_size - 1
// additions, in an unspecified order, rounds once, relative to a partial sum of at most the sum of
// the magnitudes. Factors that are powers of two do not round.
inline ::testing::AssertionResult is_sum(const std::vector<float>& got, float factor) {
  const auto n = static_cast<int64_t>(got.size());
  std::vector<double> sum(got.size()), magnitude(got.size());
  for (int rank = 0; rank < world().world_size(); ++rank) {
    const std::vector<float> x = contribution(n, rank);
    for (size_t i = 0; i < x.size(); ++i) {
      sum[i] += x[i];
      magnitude[i] += std::abs(x[i]);
    }
  }
  const double bound = (world().world_size() - 1) * 0x1p-24;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - factor * sum[i]);
    if (!(error <= factor * bound * magnitude[i])) {
      return ::testing::AssertionFailure()
             << "element " << i << " is " << got[i] << ", not " << factor * sum[i];
    }
  }
  return ::testing::AssertionSuccess();
}

#ifdef RODIMUS_TEST_REAL_GPU
struct Condition {
  const char* name;
};
inline auto conditions() { return ::testing::Values(Condition{"gpu"}); }
inline void arrange(const Condition&) {}
inline void expect_no_reports() {}
#else
struct Condition {
  const char* name;
  fakecuda::Policy policy;
  uint64_t seed;
};
inline auto conditions() {
  using fakecuda::Policy;
  return ::testing::Values(
      Condition{"lazy", Policy::lazy, 1}, Condition{"random_1", Policy::random, 1},
      Condition{"random_2", Policy::random, 2}, Condition{"eager", Policy::eager, 1});
}
inline void arrange(const Condition& condition) {
  fakecuda::set_gpus(0, world().local_size());
  // Different ranks run their queues differently.
  fakecuda::set_policy(condition.policy,
                       condition.seed + 100 * static_cast<uint64_t>(world().rank()));
  simt::config = {};
  simt::clear_reports();
}
inline void expect_no_reports() {
  fakecuda::finish_all();
  EXPECT_EQ(simt::report_text(), "");
}
#endif

class NcclTest : public ::testing::TestWithParam<Condition> {
 protected:
  void SetUp() override {
    arrange(GetParam());
    gpu = open_gpu(world());
    nccl = make_nccl(world(), gpu);
  }
  void TearDown() override {
    nccl.reset();
    expect_no_reports();
  }

  Cuda gpu;
  std::unique_ptr<Communicator> nccl;
};
inline std::string name_of_condition(const ::testing::TestParamInfo<Condition>& one) {
  return one.param.name;
}

}  // namespace rodimus::testing
