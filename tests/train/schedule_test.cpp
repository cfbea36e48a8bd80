#include "train/schedule.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace rodimus {
namespace {

OptimizerConfig config(const char* schedule) {
  OptimizerConfig c;
  c.lr = 1;
  c.min_lr = 0.1;
  c.warmup_steps = 4;
  c.schedule = schedule;
  return c;
}

// A handful of roundings in double.
constexpr double kTolerance = 1e-15;

TEST(Schedule, WarmUpIsLinearAndReachesThePeak) {
  for (const char* schedule : {"cosine", "wsd", "constant"}) {
    EXPECT_EQ(learning_rate(config(schedule), 100, 0), 0.25);
    EXPECT_EQ(learning_rate(config(schedule), 100, 2), 0.75);
    EXPECT_EQ(learning_rate(config(schedule), 100, 3), 1.0);
    EXPECT_EQ(learning_rate(config(schedule), 100, 4), 1.0);
  }
}

TEST(Schedule, CosineByHand) {
  const OptimizerConfig c = config("cosine");  // decays over steps 4 .. 12
  EXPECT_NEAR(learning_rate(c, 12, 6), 0.1 + 0.9 * 0.8535533905932737, kTolerance);  // u = 1/4
  EXPECT_NEAR(learning_rate(c, 12, 8), 0.55, kTolerance);                            // u = 1/2
  EXPECT_NEAR(learning_rate(c, 12, 10), 0.1 + 0.9 * 0.1464466094067262, kTolerance);
  EXPECT_EQ(learning_rate(c, 12, 12), 0.1);
  EXPECT_EQ(learning_rate(c, 12, 1000), 0.1);
}

TEST(Schedule, WsdByHand) {
  OptimizerConfig c = config("wsd");
  c.decay_steps = 16;
  EXPECT_EQ(learning_rate(c, 100, 50), 1.0);
  EXPECT_EQ(learning_rate(c, 100, 84), 1.0);                             // u = 0
  EXPECT_NEAR(learning_rate(c, 100, 85), 0.1 + 0.9 * 0.75, kTolerance);  // u = 1/16
  EXPECT_NEAR(learning_rate(c, 100, 88), 0.1 + 0.9 * 0.5, kTolerance);   // u = 1/4
  EXPECT_NEAR(learning_rate(c, 100, 93), 0.1 + 0.9 * 0.25, kTolerance);  // u = 9/16
  EXPECT_EQ(learning_rate(c, 100, 100), 0.1);
  c.decay_steps = 0;  // a tenth: steps 90 .. 99
  EXPECT_EQ(learning_rate(c, 100, 90), 1.0);
  EXPECT_LT(learning_rate(c, 100, 91), 1.0);
}

TEST(Schedule, ConstantStays) { EXPECT_EQ(learning_rate(config("constant"), 10, 1000), 1.0); }

TEST(Schedule, CornersAreFinite) {
  OptimizerConfig c = config("cosine");
  c.warmup_steps = 0;
  EXPECT_EQ(learning_rate(c, 1, 0), 1.0);
  c.warmup_steps = 50;  // the run ends inside its warm-up
  EXPECT_EQ(learning_rate(c, 10, 9), 0.2);
  EXPECT_EQ(learning_rate(c, 10, 50), 0.1);
  EXPECT_THROW(learning_rate(c, 10, -1), Error);
}

}  // namespace
}  // namespace rodimus
