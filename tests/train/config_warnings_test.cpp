#include "train/config/config_warnings.h"

#include <gtest/gtest.h>

#include "data/shard_writer.h"
#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

using testing::TemporaryFolder;

Config plain() {
  Config config;
  config.model.vocab_size = 100;
  config.model.d_model = 16;
  config.model.n_layers = 1;
  config.model.n_heads = 2;
  config.run.steps = 1000;
  config.data.seq_len = 512;
  return config;
}

std::vector<std::string> warnings(const std::function<void(Config&)>& change) {
  Config config = plain();
  change(config);
  return config_warnings(resolve(config, {}), nullptr, nullptr);
}

void expect_one(const std::vector<std::string>& lines, const std::vector<std::string>& words) {
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].find('\n'), std::string::npos);
  for (const std::string& word : words)
    EXPECT_NE(lines[0].find(word), std::string::npos) << word << " not in: " << lines[0];
}

TEST(Warnings, NothingToSay) {
  EXPECT_TRUE(warnings([](Config&) {}).empty());
  EXPECT_TRUE(warnings([](Config& c) { c.optimizer.warmup_steps = c.run.steps; }).empty());
  EXPECT_TRUE(warnings([](Config& c) { c.model.window = c.data.seq_len; }).empty());
  EXPECT_TRUE(
      warnings([](Config& c) { c.checkpoint.keep_every = 4 * c.checkpoint.every; }).empty());
}

TEST(Warnings, WarmUpLongerThanTheRun) {
  expect_one(warnings([](Config& c) {
               c.run.steps = 50;
               c.optimizer.warmup_steps = 100;
               c.optimizer.lr = 1e-3;
             }),
             {"optimizer.warmup_steps = 100", "run.steps = 50", "ends at 0.0005", "0.001"});
}

TEST(Warnings, WindowLongerThanTheSequence) {
  expect_one(warnings([](Config& c) { c.model.window = 513; }),
             {"model.window = 513", "data.seq_len = 512"});
  EXPECT_TRUE(warnings([](Config& c) { c.model.window = kFullWindow; }).empty());
  EXPECT_TRUE(warnings([](Config& c) {
                c.model.block = "rodimus";
                c.model.window = 513;
              }).empty())
      << "no attention, no window";
}

TEST(Warnings, KeysThatDoNothing) {
  expect_one(warnings([](Config& c) { c.run.eval_every = 10; }), {"run.eval_every", "data.val"});
  expect_one(warnings([](Config& c) { c.checkpoint.keep_every = 750; }),
             {"checkpoint.keep_every = 750", "checkpoint.every = 500"});
  expect_one(warnings([](Config& c) { c.optimizer.decay_steps = 10; }),
             {"optimizer.decay_steps", "wsd", "cosine"});
}

class Shards : public ::testing::Test {
 protected:
  void write(const std::string& name, int32_t token, bool json = true) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    ShardWriter writer(folder_ / name, {.vocab_size = 100});
    for (int i = 0; i < 4; ++i) writer.add_document(std::vector<int32_t>(20, token), 10);
    writer.close();
    writer.publish();
    if (!json) std::filesystem::remove(folder_ / (name + ".json"));
  }
  std::vector<std::string> said(const std::filesystem::path& train,
                                const std::filesystem::path& val, bool reset = false) {
    const auto open = [](const std::filesystem::path& path) {
      return Dataset({.paths = {path}, .seq_len = 8, .vocab_size = 100});
    };
    Config config = plain();
    config.data.reset_documents = reset;
    const Dataset a = open(train), b = open(val);
    return config_warnings(resolve(config, {}), &a, &b);
  }
  TemporaryFolder folder_;
};

TEST_F(Shards, TrainAndValShareNone) {
  write("train/a", 1);
  write("val/a", 2);
  EXPECT_TRUE(said(folder_ / "train", folder_ / "val").empty());
}

TEST_F(Shards, TheSamePathInOtherWords) {
  write("train/a", 1, /*json=*/false);
  write("train/b", 2, /*json=*/false);
  expect_one(said(folder_ / "train", folder_ / "train/../train/b.bin"), {"1 shard", "b.bin"});
  std::filesystem::create_directory_symlink(folder_ / "train", folder_ / "link");
  expect_one(said(folder_ / "train", folder_ / "link"), {"2 shards", "is in both"});
}

TEST_F(Shards, ACopyIsFoundByItsChecksum) {
  write("train/a", 1);
  write("val/other_name", 1);
  expect_one(said(folder_ / "train", folder_ / "val"),
             {"1 shard", "other_name.bin", "train/a.bin"});
}

TEST_F(Shards, ResettingWithoutDocuments) {
  write("train/a", 1);
  write("val/a", 2);
  EXPECT_TRUE(said(folder_ / "train", folder_ / "val", /*reset=*/true).empty());
  std::filesystem::create_directories(folder_ / "one");
  ShardWriter writer(folder_ / "one/a", {.vocab_size = 100});
  writer.add_document(std::vector<int32_t>(50, 3), 10);
  writer.close();
  writer.publish();
  expect_one(said(folder_ / "one", folder_ / "val", /*reset=*/true), {"data.reset_documents"});
}

}  // namespace
}  // namespace rodimus
