// The command line of `rodimus tokenize`: options reach the job, mistakes are rejected.
#include <gtest/gtest.h>

#include "data/shard.h"
#include "tests/data/foreign_model.h"
#include "tests/support/temporary_folder.h"
#include "tests/train/run_command.h"
#include "train/commands/commands.h"

namespace rodimus {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

void run(const std::vector<std::string>& arguments) {
  const std::string summary = testing::run_command(add_tokenize_command, arguments);
  EXPECT_NE(summary.find("documents"), std::string::npos) << summary;
}

std::string corpus() {
  std::string text;
  for (int i = 0; i < 300; ++i) {
    text += "paragraph " + std::to_string(i * 7919) + " of a small corpus\nsecond line\n\n";
  }
  return text;
}

TEST(TokenizeCommand, OptionsReachTheJob) {
  TemporaryFolder folder;
  testing::write_bytes(folder / "in/a.rst.txt", corpus());
  testing::write_bytes(folder / "in/b.txt", "\xff not read");
  const std::string out = folder / "out";
  const std::vector<std::string> arguments = {
      "tokenize", "--input",        folder / "in", "--extensions", ".rst.txt", "--separator",
      "\\n\\n",   "--out",          out,           "--vocab-size", "300",      "--model-type",
      "bpe",      "--val-fraction", "0.1",         "--no-progress"};
  run(arguments);
  const Shard train(folder / "out/train"), val(folder / "out/val");
  EXPECT_EQ(train.documents() + val.documents(), 300) << "paragraphs, so \\\\n was a newline";
  EXPECT_EQ(train.info()->vocab_size, 300);
  EXPECT_EQ(train.info()->eos_id, 1);
  expect_error([&] { run(arguments); }, {"exists", "--force"});

  run({"tokenize", "--input", folder / "in/b.txt", "--invalid-utf8", "replace", "--tokenizer",
       folder / "out/tokenizer.model", "--out", folder / "b", "--val-fraction", "0", "--no-eos",
       "--no-progress"});
  EXPECT_EQ(Shard(folder / "b/train").info()->eos_id, -1);

  testing::write_bytes(folder / "in/c.jsonl",
                       "{\"text\": \"a\"}\n{\"text\": null}\n{\"text\": \"\\ud83d\"}\n");
  const std::string summary =
      testing::run_command(add_tokenize_command,
                           {"tokenize", "--input", folder / "in/c.jsonl", "--bad-lines", "skip",
                            "--invalid-utf8", "skip", "--tokenizer", folder / "out/tokenizer.model",
                            "--out", folder / "c", "--val-fraction", "0", "--no-progress"});
  EXPECT_NE(summary.find("bad lines: 1 left out: " + (folder / "in/c.jsonl:2").native()),
            std::string::npos)
      << summary;
  EXPECT_NE(summary.find("1 documents dropped, 0 repaired: " + (folder / "in/c.jsonl:3").native()),
            std::string::npos)
      << summary;
}

TEST(TokenizeCommand, SaysWhatBecameOfTheText) {
  TemporaryFolder folder;
  testing::write_bytes(folder / "input.txt", corpus());
  const auto tokenized = [&](const std::string& tokenizer, const std::string& out) {
    return testing::run_command(
        add_tokenize_command,
        {"tokenize", "--input", folder / "input.txt", "--out", folder / out, tokenizer,
         tokenizer == "--tokenizer" ? (folder / "foreign.model").native() : "300",
         "--no-progress"});
  };
  const std::string ours = tokenized("--vocab-size", "ours");
  EXPECT_EQ(ours.find("warning"), std::string::npos) << ours;
  EXPECT_NE(ours.find("bytes of the only document are val, cut at a line end"), std::string::npos)
      << ours;
  testing::train_foreign_model(folder / "foreign", corpus(), 60);
  const std::string foreign = tokenized("--tokenizer", "foreign");
  EXPECT_NE(foreign.find("warning: the tokenizer changes the text of 2 of 2 documents: \""),
            std::string::npos)
      << foreign;
}

TEST(TokenizeCommand, MistakesAreRefused) {
  EXPECT_THROW(run({"tokenize"}), UsageError);
  EXPECT_THROW(run({"tokenize", "--input", "x", "--out", "y", "--invalid-utf8", "maybe"}),
               UsageError);
  EXPECT_THROW(run({"tokenize", "--input", "x", "--out", "y", "--bad-lines", "maybe"}), UsageError);
  EXPECT_THROW(run({"tokenize", "--input", "x", "--out", "y", "--vocabsize", "5"}), UsageError);
  for (const char* threads : {"-1", "300000"}) {
    EXPECT_THROW(run({"tokenize", "--input", "x", "--out", "y", "--threads", threads}), UsageError);
  }
}

TEST(TokenizeCommand, HelpHasAnExample) {
  const std::string help = testing::run_command(add_tokenize_command, {"tokenize", "--help"});
  EXPECT_NE(help.find("Example:"), std::string::npos);
  EXPECT_NE(help.find("--vocab-size"), std::string::npos);
}

}  // namespace
}  // namespace rodimus
