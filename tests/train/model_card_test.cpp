// The card of an exported model claims what the run recorded, of the exported step, and nothing
// else.
#include "train/report/model_card.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

class Figures : public ::testing::Test {
 protected:
  RunFigures read(const std::string& lines, int64_t step) {
    testing::write_bytes(folder / "metrics.jsonl", lines);
    return read_figures(folder / "metrics.jsonl", step);
  }

  testing::TemporaryFolder folder;
};

TEST_F(Figures, AreThoseOfTheStep) {
  const std::string lines =
      R"({"kind":"train","step":1,"loss":5.5,"ppl":244.7}
{"kind":"eval","step":1,"loss":5.25,"perplexity":190.5,"bits_per_byte":2.5}
{"kind":"train","step":2,"loss":4.5}
{"kind":"eval","step":2,"loss":4.25,"perplexity":70.5,"bits_per_byte":null}
{"kind":"left_out","step":3,"steps":1}
{"kind":"train","step":3,"loss":3.5}
{"kind":"eval","step":4,"loss":2.5,"perplexity":12.5}
)";
  RunFigures figures = read(lines, 3);
  EXPECT_EQ(figures.train_loss, 3.5);
  ASSERT_TRUE(figures.validation);
  EXPECT_EQ(figures.validation->step, 2);
  EXPECT_EQ(figures.validation->loss, 4.25);
  EXPECT_EQ(figures.validation->perplexity, 70.5);
  EXPECT_FALSE(figures.validation->bits_per_byte);
  figures = read(lines, 1);
  EXPECT_EQ(figures.train_loss, 5.5);
  EXPECT_EQ(figures.validation->bits_per_byte, 2.5);
  EXPECT_FALSE(read(lines, 4).train_loss) << "of step 4, which wrote no line";
}

TEST_F(Figures, WhatIsUnknownIsLeftOut) {
  RunFigures figures = read_figures(folder / "none", 5);
  EXPECT_FALSE(figures.train_loss);
  EXPECT_FALSE(figures.validation);
  // Not finite, not whole, not a number, not JSON.
  figures = read(
      "{\"kind\":\"train\",\"step\":5,\"loss\":null}\n{\"kind\":\"eval\",\"step\":5,\"loss\":1}\n"
      "{\"kind\":7,\"step\":5,\"loss\":2}\n{\"kind\":\"train\",\"step\":\"5\",\"loss\":2}\n[5]\n\n"
      "{\"kind\":\"train\",\"step\":5,\"lo",
      5);
  EXPECT_FALSE(figures.train_loss);
  EXPECT_FALSE(figures.validation);
}

TEST(Card, ClaimsOnlyWhatIsKnown) {
  Config config;
  config.model = {.block = "rodimus", .vocab_size = 97, .d_model = 32, .n_layers = 2};
  config.data.seq_len = 10;
  RunState state;
  RunFigures figures;
  const auto text = [&] {
    return format_model_card({.name = "mine",
                              .form = HfForm::fla,
                              .config = config,
                              .state = state,
                              .figures = figures,
                              .parameters = 123,
                              .command = "rodimus export a --out mine"});
  };
  const auto has = [&](const std::string& part) { return text().find(part) != std::string::npos; };
  for (const char* part :
       {"- rodimus\n", "# mine\n", "of 123 parameters, stored in float32", "| vocabulary | 97 |",
        "import fla", "    rodimus export a --out mine\n"})
    EXPECT_TRUE(has(part)) << part;
  for (const char* part :
       {"attention:", "training", "loss,", "perplexity", "tokenizer", "custom_code"})
    EXPECT_FALSE(has(part)) << part;

  state.step = 4;
  state.sample = 20;
  state.left_out.push_back({.step = 2, .steps = 1, .from = 5, .to = 10});
  EXPECT_TRUE(has("| tokens | 150 |")) << "without those of --skip-steps";
  EXPECT_FALSE(has("loss,"));
  EXPECT_FALSE(has("started from"));
  state.init_from = "somewhere";
  EXPECT_TRUE(has("started from"));
  EXPECT_FALSE(has("somewhere")) << "a path of this machine";
  figures.validation = {.step = 3, .loss = 1.5, .perplexity = 4.5};
  EXPECT_TRUE(has("| validation loss, nats per token after step 3 | 1.5000 |"));
  figures.validation->step = 4;
  EXPECT_TRUE(has("| validation perplexity | 4.50 |"));
  EXPECT_FALSE(has("bits per byte"));
}

}  // namespace
}  // namespace rodimus
