// The memory traffic of the CUDA attention kernels, counted by the emulator's race build. One
// schedule is enough, because counts do not depend on it.
#include <gtest/gtest.h>

#include "tests/kernels/ska_case.h"
#include "tests/simt/emulator.h"

namespace rodimus::testing {
namespace {

// Counts of the kernels of one run, selected by part of their names.
std::vector<simt::Counters> count(const SkaDims& d, std::vector<std::string> names) {
  simt::config.count = true;
  simt::reset_counters();
  Cuda gpu = backend();
  gpu.sm_count = 1;  // one block for all keys
  run_ska(gpu, d, random_ska<bf16>(d, 1));
  simt::config.count = false;
  std::vector<simt::Counters> found;
  for (const std::string& name : names) {
    for (const auto& [kernel, counters] : simt::kernel_counters())
      if (kernel.find(name) != std::string::npos) found.push_back(counters);
  }
  EXPECT_EQ(found.size(), names.size());
  return found;
}

// All heads of a tile of 16 queries share its key tiles: with H times the queries and values, the
// keys are still loaded only once.
TEST(SkaCounts, KeyBytesDoNotDependOnHeads) {
  for (const int64_t D : {64, 128}) {
    for (const int64_t H : {1, 2, 6, 16}) {
      SCOPED_TRACE(concat("D ", D, " H ", H));
      const SkaDims d{.B = 1, .T = 16, .H = H, .D = D, .Hv = H, .Tk = 48};
      const int64_t row = 2 * D;
      const auto moved = count(d, {"ska_forward"});
      EXPECT_EQ(moved.at(0).load_bytes, (d.T * H + d.Tk + d.Tk * H) * row);
    }
  }
}

// With enough queries a block has 8 warps of 16 queries, each for 2 heads of 128: a key serves 128
// queries of 2 heads, a value 128 queries.
TEST(SkaCounts, LongQueriesShareKeysAndValues) {
  for (const int64_t H : {2, 6, 16}) {
    SCOPED_TRACE(concat("H ", H));
    const SkaDims d{.B = 1, .T = 128, .H = H, .D = 128, .Hv = H};
    const int64_t row = 2 * d.D, blocks = H / 2;
    EXPECT_EQ(count(d, {"ska_forward"}).at(0).load_bytes, (d.T * H + blocks * 3 * d.T) * row);
  }
}

TEST(SkaCounts, Efficiency) {
  for (const int64_t D : {64, 128, 256}) {
    SCOPED_TRACE(concat("D ", D));
    const SkaDims d{
        .B = 1, .T = 48, .H = D == 128 ? 16 : 4, .D = D, .Hv = D == 128 ? 16 : 4, .left = 30};
    for (const auto& kernel : count(d, {"ska_forward", "ska_delta", "ska_dq", "ska_dkdv"})) {
      EXPECT_GE(kernel.sector_efficiency(), 0.95) << simt::counter_text();
      EXPECT_GE(kernel.shared_efficiency(), 0.90) << simt::counter_text();
    }
  }
}

}  // namespace
}  // namespace rodimus::testing
