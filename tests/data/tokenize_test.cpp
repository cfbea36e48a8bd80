// The whole job: texts in, shards out, and every way in which it may fail without leaving half a
// shard.
#include "data/tokenize.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <iterator>
#include <sstream>

#include "data/dataset.h"
#include "data/round_trip.h"
#include "tests/data/foreign_model.h"
#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

using testing::expect_error;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

std::string document(int i) {
  std::string text;
  for (int line = 0; line < 12; ++line) {
    text += "document " + std::to_string(i) + " has words, line " + std::to_string(line * i) +
            (line % 3 ? " and a longer tail\n" : " | cell | cell\n");
  }
  return text;
}

struct Job {
  TemporaryFolder folder;
  TokenizeOptions options;
  explicit Job(int documents = 40) {
    for (int i = 0; i < documents; ++i) {
      write_bytes(folder / ("in/" + std::to_string(100 + i) + ".txt"), document(i));
    }
    options.source.inputs = {folder / "in"};
    options.out = folder / "out";
    options.training.vocab_size = 320;
    options.val_fraction = 0.25;
    options.progress = false;
    options.threads = 2;
  }
  bool wrote_shards() const {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.path())) {
      const auto extension = entry.path().extension();
      if (extension == ".bin" || extension == ".idx" || extension == ".tmp") return true;
    }
    return false;
  }
};

TEST(Tokenize, ShardsDecodeToTheTexts) {
  Job job;
  const TokenizeResult result = tokenize(job.options);
  EXPECT_EQ(result.train.documents + result.val.documents, 40);
  EXPECT_GT(result.val.documents, 2);
  EXPECT_LT(result.val.documents, 20);
  const Tokenizer tokenizer = Tokenizer::load(job.folder / "out/tokenizer.model");
  EXPECT_EQ(tokenizer.hash(), result.tokenizer_hash);
  int64_t next_train = 0, next_val = 0, text_bytes = 0, text_words = 0;
  const auto open = [&](const char* name) {
    return Dataset({.paths = {job.folder / name}, .seq_len = 8, .vocab_size = 320});
  };
  const Dataset train = open("out/train"), val = open("out/val");
  for (int i = 0; i < 40; ++i) {
    const bool to_val = in_validation(static_cast<uint64_t>(i), 0, 0.25);
    std::vector<int32_t> ids = to_val ? val.document(next_val++) : train.document(next_train++);
    ASSERT_EQ(ids.back(), tokenizer.eos_id());
    EXPECT_EQ(tokenizer.decode(ids), document(i));
    text_bytes += static_cast<int64_t>(document(i).size());
    std::istringstream words(document(i));
    text_words += std::distance(std::istream_iterator<std::string>(words), {});
  }
  EXPECT_EQ(train.documents(), next_train);
  EXPECT_EQ(val.documents(), next_val);
  EXPECT_EQ(result.train.text_bytes + result.val.text_bytes, text_bytes);
  EXPECT_EQ(result.train.text_words + result.val.text_words, text_words);
  EXPECT_EQ(result.train.lossless, true);
  EXPECT_EQ(train.tokenizer_hash(), tokenizer.hash());
}

TEST(Tokenize, ThreadsDoNotChangeTheResult) {
  Job job;
  tokenize(job.options);
  const std::vector<std::string> names = {"train.bin", "train.idx", "train.json",     "val.bin",
                                          "val.idx",   "val.json",  "tokenizer.model"};
  for (const int threads : {1, 3, 16}) {
    TokenizeOptions again = job.options;
    again.threads = threads;
    again.out = job.folder / ("out" + std::to_string(threads));
    tokenize(again);
    for (const std::string& name : names) {
      EXPECT_EQ(read_bytes(again.out / name), read_bytes(job.options.out / name))
          << name << ", " << threads << " threads";
    }
  }
}

TEST(Tokenize, UsesAnExistingTokenizer) {
  Job job;
  tokenize(job.options);
  TokenizeOptions again = job.options;
  again.tokenizer = job.folder / "out/tokenizer.model";
  again.out = job.folder / "again";
  again.val_fraction = 0;
  again.append_eos = false;
  const TokenizeResult result = tokenize(again);
  EXPECT_EQ(result.train.documents, 40);
  EXPECT_EQ(result.train.eos_id, -1);
  EXPECT_EQ(result.val.documents, 0);
  EXPECT_FALSE(std::filesystem::exists(again.out / "val.bin"));
  EXPECT_EQ(read_bytes(again.out / "tokenizer.model"), read_bytes(again.tokenizer));
}

// A newcomer's single file.
TEST(Tokenize, OneDocumentIsCutForVal) {
  Job job(1);
  std::string text;
  for (int i = 0; i < 60; ++i) text += document(i);
  write_bytes(job.folder / "in/100.txt", text);
  job.options.val_fraction = 0.1;
  const TokenizeResult result = tokenize(job.options);
  ASSERT_TRUE(result.cut.has_value());
  EXPECT_EQ(result.cut->at, "a line end");
  EXPECT_EQ(result.train.documents, 1);
  EXPECT_EQ(result.val.documents, 1);
  EXPECT_EQ(result.train.text_bytes + result.val.text_bytes, static_cast<int64_t>(text.size()));
  EXPECT_NEAR(static_cast<double>(result.val.text_bytes), 0.1 * static_cast<double>(text.size()),
              100);
  const Tokenizer tokenizer = Tokenizer::load(job.folder / "out/tokenizer.model");
  const auto decoded = [&](const char* name) {
    return tokenizer.decode(
        Dataset({.paths = {job.folder / name}, .seq_len = 8, .vocab_size = 320}).document(0));
  };
  EXPECT_EQ(decoded("out/train").back(), '\n');
  EXPECT_EQ(decoded("out/train") + decoded("out/val"), text);
  // The tokenizer is trained only on train.
  TokenizeOptions train_only = job.options;
  write_bytes(job.folder / "t.txt", decoded("out/train"));
  train_only.source.inputs = {job.folder / "t.txt"};
  train_only.val_fraction = 0;
  train_only.out = job.folder / "train_only";
  EXPECT_EQ(tokenize(train_only).tokenizer_hash, result.tokenizer_hash);
}

TEST(Tokenize, ALongLineIsSampledInParts) {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 400; ++i) text += document(i);
  std::replace(text.begin(), text.end(), '\n', ' ');
  write_bytes(folder / "all.txt", text);
  TokenizeOptions options;
  options.source.inputs = {folder / "all.txt"};
  options.out = folder / "out";
  options.training = {.vocab_size = 300};
  options.training_bytes = static_cast<int64_t>(text.size() / 5);
  options.progress = false;
  const TokenizeResult result = tokenize(options);
  EXPECT_EQ(result.cut->at, "a space");
  EXPECT_EQ(result.train.text_bytes + result.val.text_bytes, static_cast<int64_t>(text.size()));
}

// Models from elsewhere have SentencePiece's defaults, which normalise.
TEST(Tokenize, SaysWhatATokenizerChanges) {
  Job job;
  testing::train_foreign_model(job.folder / "foreign", document(0), 50);
  job.options.tokenizer = job.folder / "foreign.model";
  write_bytes(job.folder / "in/200.txt", "document  \xef\xac\x81 ");
  const TokenizeResult result = tokenize(job.options);
  EXPECT_EQ(result.changed_documents, 41u) << "newlines are lost";
  EXPECT_NE(result.change.find("becomes"), std::string::npos);
  EXPECT_EQ(result.train.lossless, false);
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(job.folder / "in")) {
    bytes += static_cast<int64_t>(entry.file_size());
  }
  EXPECT_EQ(result.train.text_bytes + result.val.text_bytes, bytes) << "those of the original text";
}

TEST(Tokenize, RefusesToOverwrite) {
  Job job;
  tokenize(job.options);
  const std::string before = read_bytes(job.folder / "out/train.bin");
  job.options.seed = 1;
  expect_error([&] { tokenize(job.options); }, {"train.bin exists", "--force"});
  EXPECT_EQ(read_bytes(job.folder / "out/train.bin"), before);
  job.options.force = true;
  tokenize(job.options);
  EXPECT_NE(read_bytes(job.folder / "out/train.bin"), before);
}

TEST(Tokenize, ForceWithoutValRemovesTheOldVal) {
  Job job;
  tokenize(job.options);
  ASSERT_TRUE(std::filesystem::exists(job.folder / "out/val.idx"));
  job.options.val_fraction = 0;
  job.options.force = true;
  EXPECT_EQ(tokenize(job.options).train.documents, 40);
  for (const char* name : {"out/val.idx", "out/val.bin", "out/val.json"}) {
    EXPECT_FALSE(std::filesystem::exists(job.folder / name)) << name;
  }
}

TEST(Tokenize, TrainsTheTokenizerOnASampleOfOneLargeFile) {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 400; ++i) text += document(i);
  write_bytes(folder / "all.txt", text);
  TokenizeOptions options;
  options.source.inputs = {folder / "all.txt"};
  options.out = folder / "out";
  options.training = {.vocab_size = 300};
  options.training_bytes = static_cast<int64_t>(text.size() / 10);
  options.val_fraction = 0;
  options.progress = false;
  const TokenizeResult result = tokenize(options);
  EXPECT_EQ(result.train.documents, 1);
  EXPECT_EQ(result.vocab_size, 300);
}

TEST(Tokenize, BadInputIsOneClearLine) {
  Job job;
  const auto with = [&](auto change) {
    return [&, change] {
      TokenizeOptions options = job.options;
      change(options);
      tokenize(options);
    };
  };
  expect_error(with([](auto& o) { o.val_fraction = 1.5; }), {"--val-fraction", "1.5"});
  expect_error(with([](auto& o) { o.training.model_type = "word"; }), {"word", "bpe"});
  expect_error(with([](auto& o) { o.training.vocab_size = 100; }), {"--vocab-size 100"});
  expect_error(with([](auto& o) { o.training.vocab_size = 9000; }), {"9000", "lower"});
  expect_error(with([](auto& o) { o.source.inputs = {"/no/such"}; }), {"/no/such"});
  expect_error(with([](auto& o) { o.source.inputs = {"-"}; }), {"only once", "--tokenizer"});
  expect_error(with([](auto& o) { o.val_fraction = 1e-9; }), {"none went to val", "--separator"});
  expect_error(with([](auto& o) { o.tokenizer = "/no/such.model"; }), {"/no/such.model"});
  expect_error(with([](auto& o) { o.out = o.source.inputs[0] + "/100.txt/out"; }),
               {"cannot create folder"});
  EXPECT_FALSE(job.wrote_shards());
}

TEST(Tokenize, NoDocumentsIsAnError) {
  Job job;
  tokenize(job.options);
  write_bytes(job.folder / "blank/x.txt", "\n \n");
  write_bytes(job.folder / "bad/x.txt", "\xff");
  job.options.tokenizer = job.folder / "out/tokenizer.model";
  job.options.out = job.folder / "again";
  job.options.source.inputs = {job.folder / "blank"};
  expect_error([&] { tokenize(job.options); }, {"no documents", "1 file(s)"});
  job.options.source.inputs = {job.folder / "bad"};
  expect_error([&] { tokenize(job.options); }, {"x.txt", "invalid UTF-8 at byte 0"});
  job.options.source.invalid_utf8 = InvalidUtf8::skip;
  expect_error([&] { tokenize(job.options); }, {"no documents", "1 documents of invalid UTF-8"});
  // For example, the wrong --json-field.
  write_bytes(job.folder / "lines/x.jsonl", "{\"body\": \"a\"}\n{\"body\": \"b\"}\n");
  job.options.source.inputs = {job.folder / "lines"};
  job.options.source.bad_lines = BadLines::skip;
  for (const std::filesystem::path& tokenizer : {job.options.tokenizer, std::filesystem::path()}) {
    job.options.tokenizer = tokenizer;
    expect_error([&] { tokenize(job.options); },
                 {"no ", "2 bad lines left out", "x.jsonl:1 has no field 'text'"});
  }
  EXPECT_TRUE(std::filesystem::is_empty(job.options.out));
}

// A limit on the file size acts like a full disk: write() fails half-way.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    old_handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, old_handler_);
  }

 private:
  rlimit old_{};
  sighandler_t old_handler_;
};

TEST(Tokenize, FullDiskLeavesNothing) {
  Job job;
  tokenize(job.options);
  job.options.tokenizer = job.folder / "out/tokenizer.model";
  job.options.out = job.folder / "full";
  {
    const FileSizeLimit limit(4096);
    expect_error([&] { tokenize(job.options); }, {"cannot write", "full/", "free some space"});
  }
  EXPECT_TRUE(std::filesystem::is_empty(job.options.out));
}

TEST(DescribeChange, QuotesTheFirstDifference) {
  EXPECT_EQ(describe_change("a  b", "a b"), R"("a  b" becomes "a b")");
  EXPECT_EQ(describe_change("a\n", "a"), R"("a\n" becomes "a")");
  const std::string text(100, 'x');
  EXPECT_EQ(describe_change(text + "\xc2\xb2" + text, text + "2" + text),
            "\"" + text.substr(0, 16) + "\xc2\xb2" + text.substr(0, 22) + "\" becomes \"" +
                text.substr(0, 16) + "2" + text.substr(0, 23) + "\"");
}

TEST(InValidation, IsUniform) {
  // 20000 draws with p = 0.1: 2000 +- 5 deviations of sqrt(n p (1 - p)) = 42.
  int count = 0;
  for (uint64_t i = 0; i < 20000; ++i) count += in_validation(i, 3, 0.1);
  EXPECT_NEAR(count, 2000, 212);
  EXPECT_FALSE(in_validation(5, 3, 0.0));
}

}  // namespace
}  // namespace rodimus
