// How often a step makes the host wait for the GPU. Each wait leaves the GPU without work until the
// host has queued more. The fake runtime counts the waits.
#include <gtest/gtest.h>

#include "kernels/device.h"
#include "kernels/timeline.h"
#include "layers/blocks.h"
#include "tests/fakecuda/work.h"
#include "tests/support/device.h"
#include "train/config/config.h"
#include "train/report/bench.h"
#include "train/step.h"

namespace rodimus {
namespace {

constexpr int64_t kMicroBatches = 3, kT = 21;

struct Trainee {
  Exec exec = testing::backend(1);
  std::unique_ptr<Communicator> ranks = make_single();
  std::unique_ptr<Model> model;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<int32_t> ids = std::vector<int32_t>(kT, 0);

  Trainee() {
    ModelConfig config;
    config.block = "rodimus_plus";
    config.vocab_size = 50;
    config.d_model = 32;
    config.n_layers = 3;
    config.mem_size = 16;
    config.n_heads = 2;
    config.window = 9;
    model = std::make_unique<Model>(config, exec, DType::f32, /*grads=*/true);
    initialize(exec, model->parameters(), 7);
    optimizer = make_optimizer(exec, model->parameters(), {});
  }
  Stepper stepper() {
    return {.ctx = {exec, DType::f32},
            .model = *model,
            .optimizer = *optimizer,
            .communicator = *ranks,
            .tokens = kMicroBatches * kT,
            .micro_batches = kMicroBatches,
            .next = [this] {
              return BatchTensors{to_device(exec, ids, {1, kT}), to_device(exec, ids, {1, kT}), {}};
            }};
  }
};

class HostWaits : public ::testing::Test {
 protected:
  void SetUp() override {
    fakecuda::set_policy(fakecuda::Policy::lazy);  // where every needed wait is a wait
  }
  void TearDown() override { fakecuda::finish_all(); }
};

// One for the loss of each micro-batch, one for the gradient norm.
constexpr int64_t kMost = kMicroBatches + 3;

TEST_F(HostWaits, OfAStepAreFew) {
  Trainee trainee;
  Stepper stepper = trainee.stepper();
  stepper.step(1e-3);
  fakecuda::finish_all();
  (void)fakecuda::take_waits();
  stepper.step(1e-3);
  const int64_t waits = fakecuda::take_waits();
  EXPECT_GE(waits, 1);  // the counter counts
  EXPECT_LE(waits, kMost);
}

TEST_F(HostWaits, OfAProfiledStepAreFew) {
  Trainee trainee;
  Stepper stepper = trainee.stepper();
  std::vector<int64_t> waits;
  const Measured measured = measure(stepper.ctx, 2, [&] {
    (void)fakecuda::take_waits();
    stepper.step(1e-3);
    waits.push_back(fakecuda::take_waits());
  });
  ASSERT_EQ(waits.size(), 4u);  // two runs are timed, two profiled
  for (const int64_t count : waits) EXPECT_LE(count, kMost);
  EXPECT_EQ(stepper.ctx.profile, nullptr);
  EXPECT_GT(measured.seconds, 0);
  EXPECT_GT(measured.profile.seconds(), 0);
  EXPECT_GT(measured.profile.rows().size(), 20u);  // the ops, although nobody waited for them
}

// As it was once: a clock that waits for the device at every mark.
TEST_F(HostWaits, OfAProfileThatWaitsAreSeen) {
  Trainee trainee;
  Stepper stepper = trainee.stepper();
  auto& gpu = std::get<Cuda>(stepper.ctx.exec);
  Profile profile;
  size_t marks = 0;
  const auto mark = [&] {
    wait(gpu);
    ++marks;
  };
  profile.use({mark, [&] { return std::vector<double>(marks - 1); }});
  stepper.ctx.profile = &profile;
  (void)fakecuda::take_waits();
  profile.start();
  stepper.step(1e-3);
  profile.stop();
  const auto waits = static_cast<size_t>(fakecuda::take_waits());
  EXPECT_GE(waits, marks);
  EXPECT_GT(marks, 100u);
}

TEST_F(HostWaits, OfATimelineIsOne) {
  Exec exec = testing::backend(1);
  Timeline timeline(std::get<Cuda>(exec));
  for (int round = 0; round < 2; ++round) {
    (void)fakecuda::take_waits();
    for (int i = 0; i < 5; ++i) timeline.mark();
    EXPECT_EQ(fakecuda::take_waits(), 0);
    const std::vector<double> seconds = timeline.read();
    EXPECT_EQ(fakecuda::take_waits(), 1);
    EXPECT_EQ(seconds.size(), 4u);
    for (const double s : seconds) EXPECT_GE(s, 0);
  }
  EXPECT_TRUE(timeline.read().empty());
}

}  // namespace
}  // namespace rodimus
