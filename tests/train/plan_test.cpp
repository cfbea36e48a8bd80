#include "train/report/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/train/model_flops.h"

namespace rodimus {
namespace {

using testing::flops_by_hand;

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
  const auto p = to_json(plan(config, {.gpus = 4}));
  const double useful = 3 * flops_by_hand(config.model, 512) * 16 * 512 / 4;
  EXPECT_NEAR(p["flop_per_step_and_gpu"].get<double>(), useful, 1e-9 * useful);
  const double step = p["step_seconds"];
  EXPECT_NEAR(p["mfu"].get<double>(), useful / step / 989e12, 1e-9);
  EXPECT_NEAR(p["tokens_per_s"].get<double>(), 16 * 512 / step, 1e-6 * 16 * 512 / step);
  EXPECT_LT(p["mfu"].get<double>(), 1);
}

TEST(Plan, RecomputationAddsOneForwardOfTheBlocksButTheirLastProduct) {
  Config config = example();
  const double without = to_json(plan(config, {}))["flop_per_step_and_gpu"];
  config.run.recompute = true;
  const double with = to_json(plan(config, {}))["flop_per_step_and_gpu"];
  const double tokens = 16 * 512, head = 2.0 * 256 * 1000;
  // The product that ends a block is not needed again.
  const double last = static_cast<double>(config.model.n_layers) * 2 * 256 *
                      static_cast<double>(config.model.d_ff());
  EXPECT_NEAR(with - without, tokens * (flops_by_hand(config.model, 512) - head - last),
              1e-9 * with);
  const auto memory = to_json(plan(config, {}))["memory_per_gpu"];
  EXPECT_LT(memory["with_recompute"]["activations_bytes"],
            memory["without_recompute"]["activations_bytes"]);
}

nlohmann::ordered_json sum_of_gradients(const PlanOptions& options) {
  Config config = example();
  config.run.micro_batch = 1;
  config.run.global_batch = options.gpus;
  return to_json(plan(config, options))["communication"];
}
const double kGradients = 4.0 * static_cast<double>(plan(example(), {}).parameters);

TEST(Plan, WithinANodeGradientsGoOverNvlink) {
  EXPECT_EQ(sum_of_gradients({.gpus = 1})["seconds"], 0.0);
  EXPECT_TRUE(sum_of_gradients({.gpus = 1})["bus_gb_per_s"].is_null());
  for (const int gpus : {2, 5, 8}) {
    const auto ring = sum_of_gradients({.gpus = gpus, .gpu = "a100"});
    EXPECT_EQ(ring["nodes"], 1);
    EXPECT_EQ(ring["network_seconds"], 0.0);
    EXPECT_NEAR(ring["bus_gb_per_s"].get<double>(), 300, 1e-9);
    // The switch adds: each GPU sends its gradients once.
    EXPECT_DOUBLE_EQ(sum_of_gradients({.gpus = gpus})["seconds"], kGradients / 450e9);
  }
}

// 2 (m - 1) times the buffer leaves m nodes, through all of their NICs.
TEST(Plan, EveryNicOfANodeCarriesItsShare) {
  const auto eight = sum_of_gradients({.gpus = 64, .network_gbit_per_s = 400});
  EXPECT_EQ(eight["nodes"], 8);
  EXPECT_DOUBLE_EQ(eight["network_gb_per_s_per_node"], 400);
  EXPECT_DOUBLE_EQ(eight["seconds"], 2 * 7.0 / 8 * kGradients / 400e9);
  EXPECT_EQ(eight["seconds"], eight["network_seconds"]);
  // With a network faster than NVLink, NVLink is the limit.
  const auto fast = sum_of_gradients({.gpus = 64, .network_gbit_per_s = 8e6});
  EXPECT_EQ(fast["seconds"], fast["node_seconds"]);
}

// A node with few GPUs has few NICs, but its gradients must leave it too.
TEST(Plan, ThePartialNodeHasFewerNics) {
  const auto seconds = [](int gpus) {
    const auto c = sum_of_gradients({.gpus = gpus, .network_gbit_per_s = 80});
    EXPECT_EQ(c["nodes"], (gpus + 7) / 8);
    EXPECT_EQ(c["gpus_of_last_node"], (gpus - 1) % 8 + 1);
    return c["seconds"].get<double>() / kGradients;
  };
  EXPECT_DOUBLE_EQ(seconds(9), 1 / 10e9);
  EXPECT_DOUBLE_EQ(seconds(12), 1 / 40e9);
  EXPECT_DOUBLE_EQ(seconds(16), 1 / 80e9);
  EXPECT_DOUBLE_EQ(seconds(17), 1 / 10e9);
  EXPECT_DOUBLE_EQ(seconds(23), 4 / 230e9);  // 1 / 70 for the node of 7 is less
}

// Published bus bandwidths of all_reduce_perf; docs/benchmarks.md has the sources. A bound below
// any of these is wrong; one far above them would be useless.
TEST(Plan, NoPublishedBusBandwidthIsBetterThanTheBound) {
  struct Published {
    const char* gpu;
    int gpus;
    double gbit_per_s, bus_gb_per_s;
  };
  for (const Published& p : {Published{"h100", 8, 400, 480}, Published{"h100", 16, 400, 470},
                             Published{"h100", 16, 400, 430}, Published{"h100", 32, 400, 331},
                             Published{"h200", 1984, 400, 350}, Published{"a100", 16, 200, 192}}) {
    SCOPED_TRACE(::testing::Message() << p.gpus << " " << p.gpu);
    const double bound = sum_of_gradients({p.gpus, p.gpu, p.gbit_per_s})["bus_gb_per_s"];
    EXPECT_GE(bound, p.bus_gb_per_s);
    EXPECT_LE(bound, 1.8 * p.bus_gb_per_s);
  }
}

TEST(Plan, SlowLinksBoundTheStep) {
  Config config = example();
  config.run.global_batch = 32;
  const auto p = to_json(plan(config, {.gpus = 16, .network_gbit_per_s = 0.1}));
  EXPECT_EQ(p["bound"], "communication");
  EXPECT_EQ(p["step_seconds"], p["communication"]["seconds"]);
}

// If memory takes longer for every call, FLOPs are not the bound, even if they take more than half
// of that time.
TEST(Plan, MemoryBoundsWhereItTakesLonger) {
  constexpr double kFlops = 312e12, kBandwidth = 2039e9;  // of an A100
  Config config = example();
  config.model.d_model = 2048;
  const auto ops = to_json(plan(config, {.gpu = "a100"}))["ops"];
  const auto ddts =
      std::find_if(ops.begin(), ops.end(), [](const auto& op) { return op["op"] == "ddts"; });
  ASSERT_NE(ddts, ops.end());
  const double seconds = (*ddts)["seconds"];
  ASSERT_NEAR((*ddts)["gbytes"].get<double>() * 1e9 / kBandwidth, seconds, 1e-9 * seconds);
  ASSERT_GT((*ddts)["gflop"].get<double>() * 1e9 / kFlops, 0.5 * seconds);
  EXPECT_EQ((*ddts)["bound"], "memory");

  // Few rows per read of the weights.
  config.data.seq_len = 128;
  config.run.micro_batch = 1;
  config.run.global_batch = 512;
  const auto p = to_json(plan(config, {.gpu = "a100"}));
  const double step = p["gpu_seconds"];
  ASSERT_NEAR(p["bytes_per_step_and_gpu"].get<double>() / kBandwidth, step, 1e-9 * step);
  ASSERT_GT(p["flop_per_step_and_gpu"].get<double>() / kFlops, 0.5 * step);
  EXPECT_EQ(p["bound"], "memory");
}

// Linear maps of many rows are bound by FLOPs, and so is the step.
TEST(Plan, FlopsBoundWhereTheyTakeLonger) {
  Config config = example();
  config.model.d_model = 2048;
  const auto p = to_json(plan(config, {}));
  EXPECT_EQ(p["ops"][0]["op"], "linear");
  EXPECT_EQ(p["ops"][0]["bound"], "FLOPs");
  EXPECT_EQ(p["bound"], "FLOPs");
}

// The peak is in the loss: 2048 rows of 50048 logits in f32, their gradients in bf16, and the
// gradient of the head's input.
TEST(Plan, CountsTheLogitsOfTheGpu) {
  Config config = example();
  config.model.vocab_size = 50000;
  config.data.seq_len = 1024;
  for (const int64_t micro_batch : {1, 2, 4}) {
    config.run.micro_batch = micro_batch;
    const int64_t tokens = micro_batch * 1024, rows = std::min<int64_t>(tokens, 2048);
    EXPECT_EQ(to_json(plan(config, {}))["memory_per_gpu"]["without_recompute"]["workspace_bytes"],
              tokens * 2 * 256 + rows * 50048 * (4 + 2));
  }
  config.model.vocab_size = 200000;  // 512 MiB hold the f32 logits of 671 rows
  EXPECT_EQ(to_json(plan(config, {}))["memory_per_gpu"]["without_recompute"]["workspace_bytes"],
            4096 * 2 * 256 + 640 * 200000 * int64_t{4 + 2});
}

TEST(Plan, SaysWhatDoesNotFit) {
  Config config = example();
  config.model.d_model = 8192;
  config.model.n_layers = 64;
  EXPECT_FALSE(to_json(plan(config, {}))["memory_per_gpu"]["with_recompute"]["fits"].get<bool>());
  EXPECT_NE(describe(plan(config, {})).find("does NOT fit 80 GB"), std::string::npos);
}

TEST(Plan, SaysThatItIsAModel) {
  EXPECT_NE(describe(plan(example(), {})).find("A model, not a measurement"), std::string::npos);
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
