#include "train/plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/check.h"
#include "layers/memory.h"

namespace rodimus {
namespace {

Config example() {
  Config config;
  config.model.vocab_size = 1000;
  config.model.d_model = 256;
  config.model.n_layers = 2;
  config.model.n_heads = 4;
  config.model.window = 128;
  config.data.seq_len = 512;
  config.run.global_batch = 16;
  config.run.micro_batch = 2;
  config.run.steps = 10;
  return config;
}

TEST(Plan, FlopsAreThoseOfTheModel) {
  const Config config = example();
  const auto p = plan(config, {.gpus = 4});
  const double useful = 3 * forward_flops_per_token(config.model, 512) * 16 * 512 / 4;
  EXPECT_NEAR(p["flop_per_step_and_gpu"].get<double>(), useful, 1e-9 * useful);
  const double step = p["step_seconds"];
  EXPECT_NEAR(p["mfu"].get<double>(), useful / step / 989e12, 1e-9);
  EXPECT_NEAR(p["tokens_per_s"].get<double>(), 16 * 512 / step, 1e-6 * 16 * 512 / step);
  EXPECT_LT(p["mfu"].get<double>(), 1);
}

TEST(Plan, RecomputationAddsOneForwardOfTheBlocksButTheirLastProduct) {
  Config config = example();
  const double without = plan(config, {})["flop_per_step_and_gpu"];
  config.run.recompute = true;
  const double with = plan(config, {})["flop_per_step_and_gpu"];
  const double tokens = 16 * 512, head = 2.0 * 256 * 1000;
  // The product that ends a block is not needed again.
  const double last = static_cast<double>(config.model.n_layers) * 2 * 256 *
                      static_cast<double>(config.model.d_ff());
  EXPECT_NEAR(with - without, tokens * (forward_flops_per_token(config.model, 512) - head - last),
              1e-9 * with);
  const auto memory = plan(config, {})["memory_per_gpu"];
  EXPECT_LT(memory["with_recompute"]["activations_bytes"],
            memory["without_recompute"]["activations_bytes"]);
}

TEST(Plan, ARingSendsTwiceTheGradientsLessOneShare) {
  const Config config = example();
  const double gradients = 4.0 * static_cast<double>(parameter_count(config.model));
  EXPECT_EQ(plan(config, {.gpus = 1})["communication"]["seconds"], 0.0);
  const auto node = plan(config, {.gpus = 8, .gpu = "a100"})["communication"];
  EXPECT_DOUBLE_EQ(node["sent_bytes_per_gpu"], 2 * 7.0 / 8 * gradients);
  EXPECT_DOUBLE_EQ(node["seconds"], 2 * 7.0 / 8 * gradients / 300e9);
  Config wide = config;
  wide.run.global_batch = 32;
  const auto nodes =
      plan(wide, {.gpus = 16, .gpu = "a100", .network_gbit_per_s = 80})["communication"];
  EXPECT_EQ(nodes["link"], "network");
  EXPECT_DOUBLE_EQ(nodes["seconds"], 2 * 15.0 / 16 * gradients / 10e9);
}

TEST(Plan, SlowLinksBoundTheStep) {
  Config config = example();
  config.run.global_batch = 32;
  const auto p = plan(config, {.gpus = 16, .network_gbit_per_s = 0.1});
  EXPECT_EQ(p["bound"], "communication");
  EXPECT_EQ(p["step_seconds"], p["communication"]["seconds"]);
}

// Where memory takes longer for every call, FLOPs bound nothing, though they take more than half of
// that time.
TEST(Plan, MemoryBoundsWhereItTakesLonger) {
  constexpr double kFlops = 312e12, kBandwidth = 2039e9;  // of an A100
  Config config = example();
  config.model.d_model = 2048;
  const auto ops = plan(config, {.gpu = "a100"})["ops"];
  const auto ddts =
      std::find_if(ops.begin(), ops.end(), [](const auto& op) { return op["op"] == "ddts"; });
  ASSERT_NE(ddts, ops.end());
  const double seconds = (*ddts)["seconds"];
  ASSERT_NEAR((*ddts)["gbytes"].get<double>() * 1e9 / kBandwidth, seconds, 1e-9 * seconds);
  ASSERT_GT((*ddts)["gflop"].get<double>() * 1e9 / kFlops, 0.5 * seconds);
  EXPECT_EQ((*ddts)["bound"], "memory");

  // Few rows for each read of the weights.
  config.data.seq_len = 128;
  config.run.micro_batch = 1;
  config.run.global_batch = 512;
  const auto p = plan(config, {.gpu = "a100"});
  const double step = p["gpu_seconds"];
  ASSERT_NEAR(p["bytes_per_step_and_gpu"].get<double>() / kBandwidth, step, 1e-9 * step);
  ASSERT_GT(p["flop_per_step_and_gpu"].get<double>() / kFlops, 0.5 * step);
  EXPECT_EQ(p["bound"], "memory");
}

// Linear maps of many rows, and with them the step.
TEST(Plan, FlopsBoundWhereTheyTakeLonger) {
  Config config = example();
  config.model.d_model = 2048;
  const auto p = plan(config, {});
  EXPECT_EQ(p["ops"][0]["op"], "linear");
  EXPECT_EQ(p["ops"][0]["bound"], "FLOPs");
  EXPECT_EQ(p["bound"], "FLOPs");
}

// The peak is in the loss: 2048 rows of logits in f32, their gradients in bf16, both at 50048
// elements a row, and the gradient of the head's input.
TEST(Plan, CountsTheLogitsOfTheGpu) {
  Config config = example();
  config.model.vocab_size = 50000;
  config.data.seq_len = 1024;
  for (const int64_t micro_batch : {1, 2, 4}) {
    config.run.micro_batch = micro_batch;
    const int64_t tokens = micro_batch * 1024, rows = std::min<int64_t>(tokens, 2048);
    EXPECT_EQ(plan(config, {})["memory_per_gpu"]["without_recompute"]["workspace_bytes"],
              tokens * 2 * 256 + rows * 50048 * (4 + 2));
  }
  config.model.vocab_size = 200000;  // 512 MiB hold the f32 logits of 671 rows
  EXPECT_EQ(plan(config, {})["memory_per_gpu"]["without_recompute"]["workspace_bytes"],
            4096 * 2 * 256 + 640 * 200000 * int64_t{4 + 2});
}

TEST(Plan, SaysWhatDoesNotFit) {
  Config config = example();
  config.model.d_model = 8192;
  config.model.n_layers = 64;
  EXPECT_FALSE(plan(config, {})["memory_per_gpu"]["with_recompute"]["fits"].get<bool>());
  EXPECT_NE(describe_plan(plan(config, {})).find("does NOT fit 80 GB"), std::string::npos);
}

TEST(Plan, SaysThatItIsAModel) {
  EXPECT_NE(describe_plan(plan(example(), {})).find("A model, not a measurement"),
            std::string::npos);
}

TEST(Plan, RefusesWhatCannotBe) {
  Config config = example();
  EXPECT_THROW(plan(config, {.gpus = 3}), Error);  // 16 sequences
  EXPECT_THROW(plan(config, {.gpu = "tpu"}), Error);
  EXPECT_THROW(plan(config, {.network_gbit_per_s = 0}), Error);
  EXPECT_THROW(plan(config, {.gpus = 0}), Error);
  config.model.vocab_size = 0;
  EXPECT_THROW(plan(config, {}), Error);
}

}  // namespace
}  // namespace rodimus
