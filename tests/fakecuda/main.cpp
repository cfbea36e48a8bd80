// main() of tests that run GPU code on the emulator and the fake runtime: all tests once for each
// schedule of the emulator, under the three policies of the fake in turn. A test fails when the
// emulator or the fake has something to report at its end.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/fakecuda/work.h"
#include "tests/simt/schedules.h"

namespace {

using fakecuda::Policy;

class Conditions : public ::testing::EmptyTestEventListener {
  void OnTestIterationStart(const ::testing::UnitTest&, int iteration) override {
    constexpr Policy kPolicies[] = {Policy::lazy, Policy::random, Policy::eager};
    constexpr const char* kNames[] = {"lazy", "random", "eager"};
    const simt::NamedConfig& schedule =
        simt::all_schedules()[static_cast<size_t>(iteration) % simt::all_schedules().size()];
    simt::config = schedule.config;
    fakecuda::set_policy(kPolicies[iteration % 3], static_cast<uint64_t>(iteration) + 1);
    std::printf("schedule %s, streams %s%s\n", schedule.name, kNames[iteration % 3],
                simt::is_race_build() ? ", race build" : "");
  }
  void OnTestStart(const ::testing::TestInfo&) override { simt::clear_reports(); }
  void OnTestEnd(const ::testing::TestInfo&) override {
    fakecuda::finish_all();
    EXPECT_TRUE(simt::reports().empty()) << simt::report_text();
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (!std::getenv("GTEST_REPEAT")) {
    GTEST_FLAG_SET(repeat, static_cast<int>(simt::all_schedules().size()));
  }
  ::testing::InitGoogleTest(&argc, argv);  // --gtest_repeat=1 for a quick look
  ::testing::UnitTest::GetInstance()->listeners().Append(new Conditions);
  return RUN_ALL_TESTS();
}
