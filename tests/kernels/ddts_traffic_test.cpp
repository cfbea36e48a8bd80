// The memory traffic of DDTS on the GPU, counted by the emulator's race build: device memory
// compared with the minimum (every input read once, every result written once), and how well
// accesses fill sectors of device memory and banks of shared memory.
#include <gtest/gtest.h>

#include "kernels/ddts.h"
#include "tests/simt/emulator.h"
#include "tests/support/device.h"
#include "tests/support/random.h"

namespace rodimus::testing {
namespace {

constexpr int64_t kTokens = 256, kKeys = 64, kValues = 512;
constexpr DdtsDims kDims{1, kTokens, kKeys, kValues};
constexpr int64_t kHalf = 2, kFloat = 4;  // bytes of a bf16, of an f32
constexpr int64_t kState = kKeys * kValues * kFloat;

Array<bf16> halves(int64_t columns, uint64_t seed) {
  return cast<bf16>(normal(kTokens * columns, seed));
}

class DdtsTraffic : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(simt::is_race_build());
    simt::config.check_races = false;
    simt::config.count = true;
    simt::reset_counters();
  }
  void expect_traffic(int64_t least, double factor) {
    const simt::Counters c = simt::counters();
    const auto moved = static_cast<double>(c.unique_load_bytes + c.unique_store_bytes);
    EXPECT_LE(moved, factor * static_cast<double>(least)) << simt::counter_text();
    EXPECT_GE(c.sector_efficiency(), 0.95) << simt::counter_text();
    EXPECT_GE(c.shared_efficiency(), 0.90) << simt::counter_text();
    EXPECT_EQ(simt::report_text(), "");
    RecordProperty("moved_over_least", std::to_string(moved / static_cast<double>(least)));
  }

  Backend exec = backend();
  const Array<bf16> q = halves(kKeys, 1), k = halves(kKeys, 2), v = halves(kValues, 3),
                    d_o = halves(kValues, 4);
  const Array<float> g{kTokens * kKeys, -0.1f}, state{kKeys * kValues, 0.5f};
};

TEST_F(DdtsTraffic, Forward) {
  Array<bf16> o(kTokens * kValues);
  Array<float> state_out(kKeys * kValues);
  ddts_forward<bf16>(exec, {.dims = kDims,
                            .q = q.data(),
                            .k = k.data(),
                            .v = v.data(),
                            .g = g.data(),
                            .o = o.data(),
                            .state_out = state_out.data()});
  (void)o.host();
  const int64_t keys = kTokens * kKeys, values = kTokens * kValues;
  expect_traffic(keys * (2 * kHalf + kFloat) + 2 * values * kHalf + kState, 1.3);
}

TEST_F(DdtsTraffic, Backward) {
  Array<bf16> dq(kTokens * kKeys), dk(kTokens * kKeys), dv(kTokens * kValues);
  Array<float> dg(kTokens * kKeys), dstate_in(kKeys * kValues);
  for (const bool states : {false, true}) {
    SCOPED_TRACE(states);
    simt::reset_counters();
    ddts_backward<bf16>(exec, {.dims = kDims,
                               .q = q.data(),
                               .k = k.data(),
                               .v = v.data(),
                               .g = g.data(),
                               .state_in = states ? state.data() : nullptr,
                               .d_o = d_o.data(),
                               .dstate_out = states ? state.data() : nullptr,
                               .dq = dq.data(),
                               .dk = dk.data(),
                               .dv = dv.data(),
                               .dg = dg.data(),
                               .dstate_in = states ? dstate_in.data() : nullptr});
    (void)dv.host();
    const int64_t keys = kTokens * kKeys, values = kTokens * kValues;
    expect_traffic(2 * keys * (2 * kHalf + kFloat) + 3 * values * kHalf + (states ? 3 : 0) * kState,
                   2);
  }
}

}  // namespace
}  // namespace rodimus::testing
