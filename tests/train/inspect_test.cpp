#include "train/report/inspect.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"
#include "kernels/memory.h"
#include "layers/blocks.h"
#include "layers/model.h"
#include "tests/data/foreign_model.h"
#include "tests/train/model_flops.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

class Inspect : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  const fs::path folder_ = fs::path(::testing::TempDir()) / "inspect_test";
};

TEST(ModelFacts, CountWhatTheModelAllocates) {
  for (const std::string& block : block_names()) {
    for (const bool tied : {false, true}) {
      ModelConfig config;
      config.block = block;
      config.vocab_size = 37;
      config.d_model = 24;
      config.n_layers = 3;
      config.n_heads = 2;
      config.mem_size = 16;
      config.tied = tied;
      Exec exec = Cpu{};
      Model model(config, exec, DType::f32, false);
      const auto facts = to_json(model_facts(config, 64));
      const int64_t count = model.parameters().count();
      EXPECT_EQ(facts["model"]["parameters"], count);
      EXPECT_EQ(facts["model"]["parameters_without_embedding"], count - 37 * 24);
      EXPECT_EQ(facts["checkpoint_bytes"], 12 * count);
      const double flops = 3 * testing::flops_by_hand(config, 64);
      EXPECT_NEAR(facts["compute"]["training_flops_per_token"].get<double>(), flops, 1e-12 * flops);
    }
  }
}

TEST_F(Inspect, AConfiguration) {
  std::ofstream(folder_ / "c.toml") << "[model]\nd_model = 8\nn_layers = 2\nn_heads = 2\n";
  const Inspection good = inspect(folder_ / "c.toml");
  EXPECT_TRUE(good.problems.empty());
  EXPECT_EQ(good.facts["kind"], "configuration");
  EXPECT_EQ(good.facts["training"]["tokens"], 1000 * 8 * 1024);
  const auto& memory = good.facts["memory"];
  // Each parameter, and each array, begins at a cache line.
  const auto parameters = good.facts["model"]["parameters"].get<int64_t>();
  EXPECT_GE(memory["moments_bytes"].get<int64_t>(), 8 * parameters);
  EXPECT_EQ(memory["moments_bytes"], 2 * memory["gradients_bytes"].get<int64_t>());
  for (const char* kind : {"without_recompute", "with_recompute"}) {
    int64_t sum = 0;
    for (const char* part : {"parameters_bytes", "gradients_bytes", "moments_bytes", "batch_bytes"})
      sum += memory[part].get<int64_t>();
    for (const char* part : {"activations_bytes", "workspace_bytes"})
      sum += memory[kind][part].get<int64_t>();
    EXPECT_EQ(memory[kind]["total_bytes"], sum);
  }
  EXPECT_NE(describe(good).find("\nsound\n"), std::string::npos);

  std::ofstream(folder_ / "c.toml") << "[model]\nd_mode = 8\n";
  const Inspection bad = inspect(folder_ / "c.toml");
  ASSERT_EQ(bad.problems.size(), 1u);
  EXPECT_NE(describe(bad).find("DAMAGED: "), std::string::npos);
  EXPECT_NE(describe(bad).find("model.d_model"), std::string::npos);
}

// The peak is in the loss: 128 rows of 50032 logits, in f32 and with their gradients in place, and
// the gradient of the head's input.
TEST_F(Inspect, CountsTheLogitsOfTheCpu) {
  std::ofstream(folder_ / "c.toml")
      << "[model]\nvocab_size = 50001\nd_model = 8\nn_layers = 2\nn_heads = 2\n"
         "[data]\nseq_len = 512\n[run]\nmicro_batch = 1\ndevice = \"cpu\"\ncompute = \"f32\"\n";
  const auto facts = inspect(folder_ / "c.toml").facts;
  // Copies of operands and gradients of logits: three empty blocks.
  const auto taken = [](int64_t bytes) { return memory::taken(bytes, Device::cpu); };
  EXPECT_EQ(facts["memory"]["without_recompute"]["workspace_bytes"],
            taken(512 * 4 * 8) + taken(int64_t{128} * 50032 * 4) + 3 * taken(0));
}

TEST_F(Inspect, ShardsOfAFolder) {
  for (const char* name : {"train", "val"}) {
    ShardInfo info;
    info.vocab_size = 100;
    ShardWriter writer(folder_ / name, info);
    const std::vector<int32_t> document = {5, 6, 7};
    for (int i = 0; i < 4; ++i) writer.add_document(document, 10);
    writer.close();
    writer.publish();
  }
  const Inspection good = inspect(folder_);
  EXPECT_TRUE(good.problems.empty());
  ASSERT_EQ(good.facts["shards"].size(), 2u);
  EXPECT_EQ(good.facts["shards"][1]["tokens"], 12);
  EXPECT_EQ(good.facts["shards"][1]["documents"], 4);
  EXPECT_EQ(good.facts["shards"][1]["text_bytes"], 40);
  EXPECT_EQ(inspect(folder_ / "val").facts["kind"], "shard");

  std::fstream(folder_ / "val.bin", std::ios::in | std::ios::out | std::ios::binary).put('\x09');
  const Inspection bad = inspect(folder_);
  ASSERT_EQ(bad.problems.size(), 1u);
  EXPECT_NE(bad.problems[0].find("val"), std::string::npos) << bad.problems[0];
  EXPECT_EQ(inspect(folder_ / "train").problems.size(), 0u);
}

TEST_F(Inspect, WhatIsNotThereOrUnknown) {
  EXPECT_THROW(inspect(folder_ / "absent"), Error);
  EXPECT_THROW(inspect(folder_), Error);  // empty
  std::ofstream(folder_ / "x.txt") << "x";
  EXPECT_THROW(inspect(folder_ / "x.txt"), Error);
}

TEST_F(Inspect, SaysWhetherATextSurvivesItsTokens) {
  ShardInfo info;
  info.vocab_size = 100;
  ShardWriter writer(folder_ / "w", info);
  writer.add_document(std::vector<int32_t>{5}, 10, 2, true);
  writer.add_document(std::vector<int32_t>{6}, 10, 3, false);
  writer.close();
  writer.publish();
  const auto facts = inspect(folder_ / "w").facts;
  EXPECT_EQ(facts["shards"][0]["text_words"], 5);
  EXPECT_EQ(facts["shards"][0]["lossless"], false);

  int i = 0;
  const std::string model = Tokenizer::train({.vocab_size = 280}, [&](std::string& line) {
                              line = "the model decays with gates";
                              return i++ < 100;
                            }).model();
  std::ofstream(folder_ / "ours.model") << model;
  EXPECT_EQ(inspect(folder_ / "ours.model").facts["round_trips"], true);
  EXPECT_FALSE(inspect(folder_ / "ours.model").facts.contains("changes"));
  testing::train_foreign_model(folder_ / "foreign", "the model decays\n", 24);
  const Inspection foreign = inspect(folder_ / "foreign.model");
  EXPECT_EQ(foreign.facts["round_trips"], false);
  EXPECT_GE(foreign.facts["changes"].size(), 4u);
  EXPECT_NE(describe(foreign).find("becomes"), std::string::npos);
}

TEST_F(Inspect, ADamagedTokenizerIsAProblem) {
  std::ofstream(folder_ / "t.model") << "no model";
  EXPECT_EQ(inspect(folder_ / "t.model").problems.size(), 1u);
}

}  // namespace
}  // namespace rodimus
