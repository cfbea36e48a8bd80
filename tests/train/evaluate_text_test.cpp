// What precedes a document, and the counts of bytes and words behind the figures.
#include <gtest/gtest.h>

#include <cmath>

#include "data/shard_writer.h"
#include "tests/support/temporary_folder.h"
#include "train/inference/evaluate.h"

namespace rodimus {
namespace {

using testing::TemporaryFolder;

TEST(DocumentStart, IsThatOfTraining) {
  Config config;
  EXPECT_EQ(document_start(config, 7, false).token, 7);
  EXPECT_FALSE(document_start(config, 7, false).may_be_there);
  EXPECT_EQ(document_start(config, 7, true).token, -1);
  EXPECT_EQ(document_start(config, -1, false).token, -1);
  EXPECT_NE(document_start(config, -1, false).text.find("no EOS is known"), std::string::npos);
  // Documents started from an empty state, without the EOS of the previous one.
  config.data.reset_documents = true;
  EXPECT_EQ(document_start(config, 7, false).token, -1);
  // llm.c: the delimiter belongs to the document that it begins.
  config.data.document_delimiter = 9;
  const DocumentStart start = document_start(config, 7, false);
  EXPECT_EQ(start.token, 9);
  EXPECT_TRUE(start.put_before(std::vector<int32_t>{1, 9}));
  EXPECT_TRUE(start.put_before(std::vector<int32_t>{}));
  EXPECT_FALSE(start.put_before(std::vector<int32_t>{9, 1}));
  EXPECT_EQ(document_start(config, 7, true).token, -1);
}

// Two shards of 30 and 10 tokens in documents of 10, "100 bytes and 20 words" each.
class TextFigures : public ::testing::Test {
 protected:
  TextFigures() {
    config_.vocab_size = 50;
    config_.d_model = 32;
    config_.n_layers = 1;
    config_.n_heads = 2;
    config_.mem_size = 16;
    config_.window = 8;
    model_ = std::make_unique<Model>(config_, ctx_.exec, ctx_.compute, false);
    initialize(ctx_.exec, model_->parameters(), 1);
  }

  Dataset write(int64_t bytes, int64_t words, std::optional<bool> lossless) {
    for (const auto& [name, documents] : {std::pair{"a", 3}, std::pair{"b", 1}}) {
      ShardWriter writer(folder_.path() / name, {.vocab_size = 50, .eos_id = 1});
      std::vector<int32_t> tokens(10);
      for (int d = 0; d < documents; ++d) {
        for (size_t i = 0; i < tokens.size(); ++i)
          tokens[i] = static_cast<int32_t>((i * 7 + 3) % 50);
        writer.add_document(tokens, bytes, words, lossless);
      }
      writer.close();
      writer.publish();
    }
    return Dataset({.paths = {folder_.path()}, .seq_len = 4, .vocab_size = 50});
  }

  EvalResult windows(const Dataset& data, int64_t limit, bool lossless) {
    EvalOptions options{
        .micro_batch = 3, .limit = limit, .token_bytes = std::vector<int32_t>(50, 2)};
    options.text = text_counts(data, nullptr);
    options.text.lossless = lossless;
    return *evaluate_windows(*model_, ctx_, data, options, *communicator_);
  }

  TemporaryFolder folder_;
  ModelConfig config_;
  Context ctx_{Cpu{1}, DType::f32, nullptr};
  std::unique_ptr<Communicator> communicator_ = make_single();
  std::unique_ptr<Model> model_;
};

TEST_F(TextFigures, OfAllTextAreThoseOfTheShards) {
  const Dataset data = write(100, 20, false);
  for (const bool lossless : {false, true}) {
    const EvalResult all = windows(data, 0, lossless);
    EXPECT_EQ(all.tokens, 38);
    EXPECT_EQ(all.predictable, 38);
    EXPECT_EQ(all.bytes, 400);
    EXPECT_EQ(all.words, 80);
    EXPECT_EQ(all.bytes_from, CountFrom::text);
    EXPECT_EQ(all.words_from, CountFrom::text);
    EXPECT_DOUBLE_EQ(all.bits_per_byte(), all.nats / std::log(2.0) / 400);
    EXPECT_DOUBLE_EQ(all.perplexity_per_word(), std::exp(all.nats / 80));
  }
}

TEST_F(TextFigures, OfAPartAreThoseOfATokenizerThatLosesNothingOrAnEstimate) {
  const Dataset data = write(100, 20, false);
  const EvalResult part = windows(data, 3, /*lossless=*/false);
  EXPECT_EQ(part.tokens, 12);
  EXPECT_EQ(part.predictable, 38);
  EXPECT_EQ(part.bytes, 120);  // 400 * 12 / 40
  EXPECT_EQ(part.words, 24);
  EXPECT_EQ(part.bytes_from, CountFrom::estimate);
  EXPECT_EQ(part.words_from, CountFrom::estimate);
  EXPECT_NE(describe_text_figures(part).find("estimated"), std::string::npos);
  const EvalResult exact = windows(data, 3, /*lossless=*/true);
  EXPECT_EQ(exact.bytes, 24);
  EXPECT_EQ(exact.bytes_from, CountFrom::tokenizer);
}

TEST_F(TextFigures, AreUnknownWhereNobodyTells) {
  const Dataset data = write(0, -1, std::nullopt);
  const EvalResult changed = windows(data, 0, /*lossless=*/false);
  EXPECT_EQ(changed.bytes_from, CountFrom::nothing);
  EXPECT_EQ(changed.words_from, CountFrom::nothing);
  EXPECT_TRUE(std::isnan(changed.bits_per_byte()));
  EXPECT_TRUE(std::isnan(changed.perplexity_per_word()));
  EXPECT_EQ(windows(data, 0, /*lossless=*/true).bytes, 76);  // the tokens' own bytes
}

// Without a token before them, documents miss their first token, so only part of the text is
// scored.
TEST_F(TextFigures, DocumentsBegunWithATokenAreTheWholeText) {
  const Dataset data = write(100, 20, true);
  const auto documents = [&](const DocumentStart& start) {
    EvalOptions options{.text = text_counts(data, nullptr), .start = start};
    return *evaluate_documents(*model_, ctx_, data, 4, options, *communicator_);
  };
  const EvalResult after_eos = documents({.token = 1});
  EXPECT_EQ(after_eos.tokens, 40);
  EXPECT_EQ(after_eos.bytes_from, CountFrom::text);
  const EvalResult bare = documents({});
  EXPECT_EQ(bare.tokens, 36);
  EXPECT_EQ(bare.predictable, 36);
  EXPECT_EQ(bare.bytes_from, CountFrom::estimate);
  EXPECT_EQ(bare.bytes, 360);
}

}  // namespace
}  // namespace rodimus
