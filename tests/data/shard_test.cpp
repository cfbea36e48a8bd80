#include "data/shard.h"

#include <gtest/gtest.h>

#include <numeric>

#include "data/shard_writer.h"
#include "tests/data/shard_files.h"

namespace rodimus {
namespace {

using testing::append;
using testing::expect_error;
using testing::TemporaryFolder;
using testing::write_bytes;

std::vector<int32_t> all_tokens(const Shard& shard, int64_t vocab_size = 1 << 20) {
  std::vector<int32_t> tokens(static_cast<size_t>(shard.tokens()));
  shard.read(0, shard.tokens(), vocab_size, tokens.data());
  return tokens;
}

ShardInfo write_shard(const std::filesystem::path& prefix, int64_t vocab_size,
                      const std::vector<std::vector<int32_t>>& documents) {
  ShardWriter writer(prefix, {.tokenizer_hash = "0123456789abcdef", .vocab_size = vocab_size});
  for (const auto& document : documents) writer.add_document(document, 10);
  writer.close();
  writer.publish();
  return writer.info();
}

TEST(Megatron, ReadsSequencesAsDocuments) {
  TemporaryFolder folder;
  write_bytes(folder / "a.b.bin", testing::small_bin());
  write_bytes(folder / "a.b.idx", testing::megatron_idx(testing::small_fields()));
  for (const char* name : {"a.b", "a.b.bin", "a.b.idx"}) {
    const Shard shard(folder / name);
    EXPECT_EQ(all_tokens(shard), (std::vector<int32_t>{10, 11, 12, 13, 14, 20, 21}));
    ASSERT_EQ(shard.documents(), 2);
    EXPECT_EQ(shard.document_begin(0), 0);
    EXPECT_EQ(shard.document_begin(1), 5);
    EXPECT_EQ(shard.document_begin(2), 7);
    const std::vector<int64_t> owner = {0, 0, 0, 0, 0, 1, 1};
    for (int64_t i = 0; i < 7; ++i) {
      EXPECT_EQ(shard.document_at(i), owner[static_cast<size_t>(i)]) << i;
    }
    EXPECT_FALSE(shard.info());
  }
}

TEST(Megatron, ReadsInt32AndEmptyDocuments) {
  TemporaryFolder folder;
  std::string bin;
  append(bin, std::vector<int32_t>{100000, 5, 70000});
  write_bytes(folder / "x.bin", bin);
  write_bytes(
      folder / "x.idx",
      testing::megatron_idx(
          {.code = 4, .sizes = {1, 0, 2}, .pointers = {0, 4, 4}, .ends = {0, 0, 1, 2, 3, 3}}));
  const Shard shard(folder / "x");
  EXPECT_EQ(all_tokens(shard), (std::vector<int32_t>{100000, 5, 70000}));
  EXPECT_EQ(shard.documents(), 5);
  EXPECT_EQ(shard.document_at(0), 1);
  EXPECT_EQ(shard.document_at(1), 3);
  EXPECT_EQ(shard.document_begin(4), 3);
}

TEST(Megatron, WriterProducesExactlyTheFormat) {
  TemporaryFolder folder;
  write_shard(folder / "w", 100, {{1, 2, 3}, {4}});
  EXPECT_EQ(testing::read_bytes(folder / "w.idx"),
            testing::megatron_idx({.sizes = {3, 1}, .pointers = {0, 6}, .ends = {0, 1, 2}}));
  std::string bin;
  append(bin, std::vector<uint16_t>{1, 2, 3, 4});
  EXPECT_EQ(testing::read_bytes(folder / "w.bin"), bin);
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    files += entry.is_regular_file();
  }
  EXPECT_EQ(files, 3u) << "w.bin, w.idx, w.json and no temporary file";
}

TEST(Megatron, WriterPicksTheTokenTypeByVocabulary) {
  TemporaryFolder folder;
  for (const int64_t vocab_size : {65535, 65536, 65537, 200000}) {
    const auto top = static_cast<int32_t>(vocab_size - 1);
    write_shard(folder / "w", vocab_size, {{0, top}, {top}});
    const Shard shard(folder / "w");
    EXPECT_EQ(shard.token_type(), vocab_size <= 65536 ? TokenType::u16 : TokenType::i32);
    EXPECT_EQ(all_tokens(shard, vocab_size), (std::vector<int32_t>{0, top, top})) << vocab_size;
    shard.verify(vocab_size);
  }
}

TEST(Megatron, SidecarSurvivesTheRoundTrip) {
  TemporaryFolder folder;
  const ShardInfo info = write_shard(folder / "w", 100, {{1, 2, 3}, {4}});
  EXPECT_EQ(info.documents, 2);
  EXPECT_EQ(info.tokens, 4);
  EXPECT_EQ(info.text_bytes, 20);
  EXPECT_EQ(Shard(folder / "w").info(), info);
}

TEST(Megatron, SidecarKnowsWordsAndLossesOrSaysNothing) {
  TemporaryFolder folder;
  const std::vector<int32_t> tokens = {1, 2};
  const auto written = [&](auto... documents) {
    ShardWriter writer(folder / "w", {.vocab_size = 100});
    (documents(writer), ...);
    writer.close();
    writer.publish();
    const auto info = read_shard_info(folder / "w.json");
    EXPECT_EQ(info, writer.info());
    return *info;
  };
  const auto whole = [&](ShardWriter& w) { w.add_document(tokens, 10, 2, true); };
  const auto changed = [&](ShardWriter& w) { w.add_document(tokens, 10, 3, false); };
  const auto unknown = [&](ShardWriter& w) { w.add_document(tokens, 10); };
  EXPECT_EQ(written(whole, whole).text_words, 4);
  EXPECT_EQ(written(whole, whole).lossless, true);
  EXPECT_EQ(written(whole, changed, whole).lossless, false);
  EXPECT_EQ(written(whole, changed).text_words, 5);
  for (const ShardInfo& info : {written(unknown, whole), written(whole, unknown)}) {
    EXPECT_EQ(info.text_words, -1);
    EXPECT_EQ(info.lossless, std::nullopt);
    // As written by earlier versions: such files load, and we write the same text.
    const std::string json = to_json(info);
    EXPECT_EQ(json.find("text_words"), std::string::npos);
    EXPECT_EQ(json.find("lossless"), std::string::npos);
  }
}

TEST(Megatron, WriterRefusesTokensOutsideTheVocabulary) {
  TemporaryFolder folder;
  ShardWriter writer(folder / "w", {.vocab_size = 100});
  EXPECT_THROW(writer.add_document(std::vector<int32_t>{100}, 1), Error);
  EXPECT_THROW(writer.add_document(std::vector<int32_t>{-1}, 1), Error);
  EXPECT_THROW(writer.add_document(std::vector<int32_t>{}, 1), Error);
  expect_error([&] { writer.close(); }, {"no documents"});
}

TEST(Megatron, UnpublishedShardLeavesNothing) {
  TemporaryFolder folder;
  {
    ShardWriter writer(folder / "w", {.vocab_size = 100});
    writer.add_document(std::vector<int32_t>{1, 2}, 1);
    writer.close();
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Llmc, ReadsBothTokenTypes) {
  TemporaryFolder folder;
  write_bytes(folder / "gpt2.bin",
              testing::llmc_bin<uint16_t>(20240520, 1, {50256, 7, 8, 50256, 9}));
  const Shard gpt2(folder / "gpt2.bin");
  EXPECT_EQ(all_tokens(gpt2), (std::vector<int32_t>{50256, 7, 8, 50256, 9}));
  EXPECT_EQ(gpt2.documents(), 1);
  const Shard split(folder / "gpt2.bin", /*document_delimiter=*/50256);
  ASSERT_EQ(split.documents(), 2);
  EXPECT_EQ(split.document_begin(1), 3);
  EXPECT_EQ(split.document_at(2), 0);
  EXPECT_EQ(split.document_at(4), 1);

  write_bytes(folder / "llama.bin", testing::llmc_bin<uint32_t>(20240801, 7, {128000, 7}));
  EXPECT_EQ(all_tokens(Shard(folder / "llama.bin")), (std::vector<int32_t>{128000, 7}));
}

TEST(Llmc, DamageIsAnError) {
  TemporaryFolder folder;
  const std::string good = testing::llmc_bin<uint16_t>(20240520, 1, {1, 2, 3});
  const auto open = [&](const std::string& bytes) {
    write_bytes(folder / "x.bin", bytes);
    return [&] { Shard shard(folder / "x.bin"); };
  };
  open(good)();
  expect_error(open(good.substr(0, good.size() - 1)), {"x.bin", "announces 3 tokens"});
  expect_error(open(good + "ab"), {"x.bin", "announces 3 tokens"});
  expect_error(open(good.substr(0, 1000)), {"x.bin", "1000 bytes", "1024"});
  expect_error(open(testing::llmc_bin<uint16_t>(20240520, 2, {1})), {"version 2"});
  expect_error(open(testing::llmc_bin<uint16_t>(20240801, 1, {1})), {"version 1"});
  expect_error(open(testing::llmc_bin<uint16_t>(20240522, 1, {1})), {"multiple-choice"});
  expect_error(open(testing::llmc_bin<uint16_t>(20240520, 1, {})), {"0 tokens"});
  expect_error(open(testing::llmc_bin<uint16_t>(1, 1, {1})), {"x.idx", "is missing"});
  expect_error(open("ab"), {"x.idx", "is missing"});
}

TEST(Damage, MissingEmptyAndWrongFiles) {
  TemporaryFolder folder;
  expect_error([&] { Shard shard(folder / "none"); }, {"none.bin", "No such file"});
  write_bytes(folder / "x.idx", testing::megatron_idx(testing::small_fields()));
  expect_error([&] { Shard shard(folder / "x"); }, {"x.bin", "No such file"});
  write_bytes(folder / "x.bin", "");
  expect_error([&] { Shard shard(folder / "x"); }, {"x.bin", "is empty"});
  write_bytes(folder / "x.bin", testing::small_bin());
  write_bytes(folder / "x.idx", "");
  expect_error([&] { Shard shard(folder / "x"); }, {"x.idx", "is empty"});
  std::filesystem::remove(folder / "x.idx");
  expect_error([&] { Shard shard(folder / "x"); }, {"x.idx", "is missing"});
  std::filesystem::create_directory(folder / "d.bin");
  expect_error([&] { Shard shard(folder / "d.bin"); }, {"d.bin", "not a regular file"});
}

TEST(Damage, EveryTruncationIsAnError) {
  TemporaryFolder folder;
  const std::string idx = testing::megatron_idx(testing::small_fields());
  const std::string bin = testing::small_bin();
  write_bytes(folder / "x.bin", bin);
  for (size_t size = 1; size < idx.size(); ++size) {
    write_bytes(folder / "x.idx", idx.substr(0, size));
    expect_error([&] { Shard shard(folder / "x"); }, {"x.idx"});
  }
  write_bytes(folder / "x.idx", idx + "abcd");
  expect_error([&] { Shard shard(folder / "x"); }, {"x.idx", "do not fit"});
  write_bytes(folder / "x.idx", idx + "abc");  // one byte per sequence, as sequence modes have
  expect_error([&] { Shard shard(folder / "x"); }, {"x.idx", "multimodal"});
  write_bytes(folder / "x.idx", idx);
  for (size_t size = 1; size < bin.size(); ++size) {
    write_bytes(folder / "x.bin", bin.substr(0, size));
    expect_error([&] { Shard shard(folder / "x"); },
                 {"x.idx", ".bin file has " + std::to_string(size)});
  }
  write_bytes(folder / "x.bin", bin + "ab");
  expect_error([&] { Shard shard(folder / "x"); }, {"x.idx", ".bin file has 16"});
}

TEST(Damage, InconsistentIndexIsAnError) {
  TemporaryFolder folder;
  write_bytes(folder / "x.bin", testing::small_bin());
  const auto open = [&](auto change) {
    testing::MegatronFields fields = testing::small_fields();
    change(fields);
    write_bytes(folder / "x.idx", testing::megatron_idx(fields));
    return [&] { Shard shard(folder / "x"); };
  };
  expect_error(open([](auto& f) { f.version = 2; }), {"version 2"});
  expect_error(open([](auto& f) { f.code = 3; }), {"code 3", "uint16"});
  expect_error(open([](auto& f) { f.sizes[1] = -2; }), {"sequence 1", "-2"});
  expect_error(open([](auto& f) { f.sizes[1] = 3; }), {"sequence 2", "expected 12"});
  expect_error(open([](auto& f) { f.pointers[1] = 7; }), {"sequence 1", "7", "expected 6"});
  expect_error(open([](auto& f) { f.pointers[2] = -10; }), {"sequence 2", "-10"});
  expect_error(open([](auto& f) { f.sizes[2] = 0x7fffffff; }), {"more than", "has 14"});
  expect_error(open([](auto& f) { f.ends[0] = 1; }), {"document bound 0 is 1"});
  expect_error(open([](auto& f) { f.ends[1] = 4; }), {"document bound 1 is 4"});
  expect_error(open([](auto& f) { f.ends[1] = -1; }), {"document bound 1 is -1"});
  expect_error(open([](auto& f) { f.ends[2] = 2; }), {"end at sequence 2 of 3"});
  expect_error(open([](auto& f) { f.ends = {0}; }), {"no documents"});
  std::string wrong_magic = testing::megatron_idx(testing::small_fields());
  wrong_magic[0] = 'X';
  write_bytes(folder / "x.idx", wrong_magic);
  expect_error([&] { Shard shard(folder / "x"); }, {"MMIDIDX"});
  // Counts that overflow the size computation.
  std::string huge = testing::megatron_idx(testing::small_fields());
  std::memset(huge.data() + 18, 0xff, 16);
  write_bytes(folder / "x.idx", huge);
  expect_error([&] { Shard shard(folder / "x"); }, {"do not fit"});
}

TEST(Damage, EveryFlippedBitIsFound) {
  TemporaryFolder folder;
  write_shard(folder / "w", 100, {{1, 2, 3}, {4}, {5, 6}});
  Shard(folder / "w").verify(100);
  for (const char* name : {"w.bin", "w.idx", "w.json"}) {
    const std::string good = testing::read_bytes(folder / name);
    // All bits of the binary files; one bit per character of the long text.
    const size_t stride = name == std::string("w.json") ? 7 : 1;
    for (size_t bit = 0; bit < good.size() * 8; bit += stride) {
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      // White space between JSON tokens may change into other white space: it carries no
      // information.
      if (std::isspace(static_cast<unsigned char>(good[bit / 8]))) continue;
      write_bytes(folder / name, bad);
      expect_error([&] { Shard(folder / "w").verify(100); }, {"w."});
    }
    write_bytes(folder / name, good);
  }
  Shard(folder / "w").verify(100);
}

TEST(Damage, TokenOutsideTheVocabularyIsNamed) {
  TemporaryFolder folder;
  write_bytes(folder / "x.bin", testing::small_bin());
  write_bytes(folder / "x.idx", testing::megatron_idx(testing::small_fields()));
  const Shard shard(folder / "x");
  shard.verify(22);
  expect_error([&] { shard.verify(21); }, {"x.bin", "token 21", "position 6", "vocabulary of 21"});
  std::vector<int32_t> tokens(7);
  shard.read(0, 6, 21, tokens.data());
  expect_error([&] { shard.read(3, 4, 21, tokens.data()); }, {"token 21", "position 6"});
  EXPECT_THROW(shard.read(3, 5, 100, tokens.data()), Error);

  std::string bin;
  append(bin, std::vector<int32_t>{1, -5});
  write_bytes(folder / "y.bin", bin);
  write_bytes(folder / "y.idx",
              testing::megatron_idx({.code = 4, .sizes = {2}, .pointers = {0}, .ends = {0, 1}}));
  expect_error([&] { Shard(folder / "y").verify(100); }, {"y.bin", "token -5", "position 1"});

  write_shard(folder / "w", 100, {{1}});
  expect_error([&] { Shard(folder / "w").verify(50); }, {"vocabulary of 100", "model has 50"});
}

TEST(FindShards, FilesFoldersAndMistakes) {
  TemporaryFolder folder;
  expect_error([&] { find_shards(folder.path()); }, {"no shards in"});
  expect_error([&] { find_shards(folder / "no"); }, {"no shard at", "no.idx"});
  for (const char* name : {"b.bin", "b.idx", "a.bin", "c.idx", "notes.txt"}) {
    write_bytes(folder / name, "x");
  }
  const auto found = find_shards(folder.path());
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0], folder / "a");
  EXPECT_EQ(found[1], folder / "b");
  EXPECT_EQ(found[2], folder / "c");
  EXPECT_EQ(find_shards(folder / "b.idx"), (std::vector{folder / "b"}));
  write_bytes(folder / "train.bin", "x");
  write_bytes(folder / "val.bin", "x");
  expect_error([&] { find_shards(folder.path()); }, {"both train and val"});
}

}  // namespace
}  // namespace rodimus
