// `rodimus eval` compared with the float64 losses of the authors' model: parameters go through a
// checkpoint with its configuration, tokens through shards.
#include "train/inference/evaluate.h"

#include "checkpoints/checkpoint.h"
#include "data/shard_writer.h"
#include "tests/layers/golden_model.h"
#include "tests/support/temporary_folder.h"
#include "train/inference/load_model.h"
#include "train/run_state.h"

namespace rodimus::testing {
namespace {

class EvaluateGolden : public ::testing::TestWithParam<std::filesystem::path> {
 protected:
  EvaluateGolden() : golden_(GetParam()), shape_(golden_.shape("input_ids")) {
    write_checkpoint();
    write_shards();
    loaded_ = load_model(folder_.path() / "run", ctx_.exec, "f32", nullptr);
  }

  void write_checkpoint() {
    Config config;
    config.model = golden_config(golden_);
    Model model(config.model, ctx_.exec, ctx_.compute, /*grads=*/false);
    load_golden(golden_, ctx_.exec, model);
    const FlatLayout layout = layout_of(model.parameters());
    const OwnedArray params{"params", model.parameters().values.data<float>()};
    TrainState state;
    state.config_toml = to_toml(config);
    save_checkpoint(folder_.path() / "run", state, layout, {0, layout.size}, {&params, 1},
                    *communicator_);
  }

  // One shard per row, because windows run through all documents of a shard.
  void write_shards() {
    for (int64_t b = 0; b < shape_[0]; ++b)
      shards_.push_back(write_shard("row" + std::to_string(b), row(b)));
  }
  std::filesystem::path write_shard(const std::string& name, std::span<const int32_t> tokens) {
    ShardInfo info;
    info.vocab_size = static_cast<int64_t>(golden_.number("vocab_size"));
    const auto prefix = folder_.path() / name;
    ShardWriter writer(prefix, info);
    writer.add_document(tokens, 0);
    writer.close();
    writer.publish();
    return prefix;
  }
  std::vector<int32_t> row(int64_t b) const {
    const std::vector<int32_t> ids = golden_.i32("input_ids");
    return {ids.begin() + b * shape_[1], ids.begin() + (b + 1) * shape_[1]};
  }

  Dataset data(int64_t seq_len = 0) const { return data(shards_, seq_len); }
  Dataset data(const std::vector<std::filesystem::path>& shards, int64_t seq_len) const {
    return Dataset({.paths = shards,
                    .seq_len = seq_len > 0 ? seq_len : shape_[1] - 1,
                    .vocab_size = loaded_.config.model.vocab_size,
                    .needs_window = false});
  }

  void expect_golden(const std::optional<EvalResult>& result) const {
    ASSERT_TRUE(result.has_value());
    EXPECT_EQ(result->tokens, shape_[0] * (shape_[1] - 1));
    // The error of a mean of f32 losses: a few eps (6e-8) each from the logits on.
    EXPECT_TRUE(close(std::vector{result->loss()}, golden_.array("loss"), 1e-6));
  }

  TemporaryFolder folder_;
  Golden golden_;
  std::vector<int64_t> shape_;  // (B, T)
  Context ctx_{Cpu{2}, DType::f32, nullptr};
  std::unique_ptr<Communicator> communicator_ = make_single();
  std::vector<std::filesystem::path> shards_;
  LoadedModel loaded_;
};

TEST_P(EvaluateGolden, Windows) {
  for (const int64_t micro_batch : {1, 2, 100}) {
    EvalOptions options;
    options.micro_batch = micro_batch;
    expect_golden(evaluate_windows(*loaded_.model, ctx_, data(), options, *communicator_));
  }
}

TEST_P(EvaluateGolden, DocumentsWithCarriedStateInAnyPieces) {
  for (const int64_t chunk : {int64_t{7}, int64_t{64}, shape_[1]}) {
    SCOPED_TRACE(concat("pieces of ", chunk));
    expect_golden(evaluate_documents(*loaded_.model, ctx_, data(), chunk, {}, *communicator_));
  }
}

// Shards shorter than a window are scored completely, as one remainder.
TEST_P(EvaluateGolden, ShardsShorterThanAWindow) {
  const auto result = evaluate_windows(*loaded_.model, ctx_, data(shape_[1] + 5),
                                       {.micro_batch = 3}, *communicator_);
  expect_golden(result);
  EXPECT_EQ(result->predictable, result->tokens);
}

// The windows of a shard and its remainder score the same as if they were separate shards.
TEST_P(EvaluateGolden, TheTailIsScoredAsAShorterWindow) {
  const std::vector<int32_t> tokens = row(0);
  const int64_t T = shape_[1] * 2 / 5;  // two windows and a tail
  std::vector<std::filesystem::path> parts;
  for (int64_t at = 0; at < shape_[1] - 1; at += T) {
    const int64_t end = std::min(at + T + 1, shape_[1]);
    parts.push_back(
        write_shard("part" + std::to_string(at), {tokens.begin() + at, tokens.begin() + end}));
  }
  ASSERT_EQ(parts.size(), 3u);
  const auto want = evaluate_documents(*loaded_.model, ctx_, data(parts, T), T, {}, *communicator_);
  for (const int64_t micro_batch : {1, 100}) {
    const auto got = evaluate_windows(*loaded_.model, ctx_, data({shards_[0]}, T),
                                      {.micro_batch = micro_batch}, *communicator_);
    EXPECT_EQ(got->tokens, shape_[1] - 1);
    EXPECT_EQ(got->predictable, shape_[1] - 1);
    EXPECT_NEAR(got->nats, want->nats, 1e-6 * want->nats);
  }
  const auto limited = evaluate_windows(*loaded_.model, ctx_, data({shards_[0]}, T),
                                        {.micro_batch = 1, .limit = 2}, *communicator_);
  EXPECT_EQ(limited->tokens, 2 * T);
  EXPECT_EQ(limited->predictable, shape_[1] - 1);
}

// A document without its first token, preceded by that token.
TEST_P(EvaluateGolden, ATokenIsPutBeforeDocuments) {
  const std::vector<int32_t> tokens = row(0);
  const Dataset whole = data({shards_[0]}, 16);
  const Dataset rest = data({write_shard("rest", {tokens.begin() + 1, tokens.end()})}, 16);
  const auto score = [&](const Dataset& dataset, const DocumentStart& start) {
    return *evaluate_documents(*loaded_.model, ctx_, dataset, 16, {.start = start}, *communicator_);
  };
  const EvalResult want = score(whole, {});
  const EvalResult put = score(rest, {.token = tokens[0]});
  EXPECT_EQ(put.nats, want.nats);
  EXPECT_EQ(put.tokens, shape_[1] - 1);
  EXPECT_EQ(put.predictable, shape_[1] - 1);
  // The token is already there.
  const EvalResult there = score(whole, {.token = tokens[0], .may_be_there = true});
  EXPECT_EQ(there.nats, want.nats);
  EXPECT_EQ(there.predictable, shape_[1] - 1);
  // A document that begins with EOS still gets another EOS before it.
  EXPECT_EQ(score(whole, {.token = tokens[0]}).tokens, shape_[1]);
}

INSTANTIATE_TEST_SUITE_P(Files, EvaluateGolden, ::testing::ValuesIn(golden_files("models", "")),
                         [](const auto& param) { return golden_name(param.param); });

}  // namespace
}  // namespace rodimus::testing
