// Verification in pieces, and its record.
#include "data/file_check.h"

#include <gtest/gtest.h>

#include "data/shard_writer.h"
#include "tests/data/shard_files.h"

namespace rodimus {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;
using testing::write_bytes;
using Part = FileCheck::Part;

class Files : public ::testing::Test {
 protected:
  Files() {
    ShardWriter writer(folder_ / "w", {.vocab_size = 100});
    for (int i = 0; i < 10; ++i) writer.add_document(std::vector<int32_t>(7, 10 * i + 3), 10);
    writer.close();
    writer.publish();
  }
  void flip(const std::string& name, size_t byte) {
    std::string bytes = testing::read_bytes(folder_ / name);
    bytes[byte] = static_cast<char>(bytes[byte] ^ 1);
    write_bytes(folder_ / name, bytes);
  }
  static void read_all(FileCheck& check, uint64_t piece) {
    while (!check.done()) check.advance(piece);
  }
  TemporaryFolder folder_;
};

TEST_F(Files, AnyPieceGivesTheChecksum) {
  const Shard shard(folder_ / "w");
  for (const Part part : {Part::tokens, Part::index}) {
    for (const uint64_t piece : {1, 2, 3, 16, 1000}) {
      FileCheck check(shard, part, 100);
      EXPECT_TRUE(check.is_needed());
      read_all(check, piece);
      EXPECT_EQ(check.result().xxh64,
                part == Part::tokens ? shard.info()->bin_xxh64 : shard.info()->idx_xxh64);
      EXPECT_EQ(check.advance(piece), 0u);
    }
  }
}

TEST_F(Files, DamageIsFoundAndNeverDone) {
  flip("w.bin", 77);
  const Shard shard = Shard::open_unchecked(folder_ / "w", {});
  FileCheck check(shard, Part::tokens, 100);
  for (int i = 0; i < 3; ++i) {  // asking again does not make it intact
    expect_error([&] { read_all(check, 64); }, {"w.bin", "XXH64", "damaged"});
    EXPECT_FALSE(check.done());
  }
}

TEST_F(Files, WithoutChecksumsTokensAreLookedAtPieceByPiece) {
  std::filesystem::remove(folder_ / "w.json");
  const Shard shard(folder_ / "w");
  EXPECT_FALSE(FileCheck(shard, Part::index, 100).is_needed()) << "its structure is all there is";
  for (const uint64_t piece : {1, 3, 5, 64}) {
    FileCheck check(shard, Part::tokens, 94);
    read_all(check, piece);
    EXPECT_EQ(check.result().largest_token, 93);
    FileCheck small(shard, Part::tokens, 93);
    expect_error([&] { read_all(small, piece); }, {"token 93", "position 63", "vocabulary of 93"});
    EXPECT_FALSE(small.done());
  }
}

TEST_F(Files, LlmcTokensBeginBehindTheHeader) {
  write_bytes(folder_ / "l.bin",
              testing::llmc_bin(20240520, 1, std::vector<uint16_t>{5, 9, 41, 7}));
  const Shard shard(folder_ / "l");
  for (const uint64_t piece : {1, 1023, 1024, 1025, 5000}) {
    FileCheck check(shard, Part::tokens, 50);
    read_all(check, piece);
    EXPECT_EQ(check.result().largest_token, 41);
    FileCheck small(shard, Part::tokens, 41);
    expect_error([&] { read_all(small, piece); }, {"token 41", "position 2"});
  }
}

TEST_F(Files, WhatIsKnownIsTheSameFileWithTheSameChecksum) {
  const Shard shard(folder_ / "w");
  FileCheck check(shard, Part::tokens, 100);
  read_all(check, 64);
  const VerifiedFiles known = {{check.path(), check.result()}};
  EXPECT_TRUE(check.known_by(known));
  EXPECT_FALSE(check.known_by({}));
  EXPECT_FALSE(FileCheck(shard, Part::index, 100).known_by(known));
  const auto changed = [&](auto&& change) {
    VerifiedFiles other = known;
    change(other.begin()->second);
    return check.known_by(other);
  };
  EXPECT_FALSE(changed([](VerifiedFile& f) { ++f.bytes; }));
  EXPECT_FALSE(changed([](VerifiedFile& f) { ++f.mtime_ns; })) << "one nanosecond";
  EXPECT_FALSE(changed([](VerifiedFile& f) { ++f.xxh64; })) << "another NAME.json";

  std::filesystem::remove(folder_ / "w.json");
  const Shard plain(folder_ / "w");
  EXPECT_FALSE(FileCheck(plain, Part::tokens, 100).known_by(known)) << "no token was looked at";
  FileCheck tokens(plain, Part::tokens, 100);
  read_all(tokens, 64);
  const VerifiedFiles looked = {{tokens.path(), tokens.result()}};
  EXPECT_TRUE(FileCheck(plain, Part::tokens, 94).known_by(looked));
  EXPECT_FALSE(FileCheck(plain, Part::tokens, 93).known_by(looked)) << "a smaller vocabulary";
}

TEST(VerifiedFiles, SurviveTheRoundTrip) {
  const VerifiedFiles files = {{"/a/b.bin", {1, -5, 0xffffffffffffffff, -1}},
                               {"/a/\"c\" d.bin", {UINT64_MAX, INT64_MAX, 0, 65535}},
                               {"/ä.bin", {7, 8, 9, 10}}};
  EXPECT_EQ(parse_verified(to_json(files)), files);
  EXPECT_EQ(parse_verified(to_json(VerifiedFiles{})), VerifiedFiles{});
}

TEST(VerifiedFiles, DamageIsForgetting) {
  const std::string good =
      to_json(VerifiedFiles{{"/a.bin", {1, 2, 3, 4}}, {"/b.bin", {5, 6, 7, 8}}});
  EXPECT_TRUE(parse_verified("").empty());
  for (size_t cut = 0; cut + 2 < good.size(); ++cut)
    EXPECT_TRUE(parse_verified(good.substr(0, cut)).empty()) << cut;
  const VerifiedFiles whole = parse_verified(good);
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    const VerifiedFiles got = parse_verified(bad);
    // White space may change into other white space.
    EXPECT_TRUE(got.empty() || got == whole) << bit;
  }
  for (const char* text : {"[]", "{}", "null", "7", "{\"format\":\"rodimus verified files\"}"})
    EXPECT_TRUE(parse_verified(text).empty()) << text;
  EXPECT_NO_THROW(to_json(VerifiedFiles{{"/\xff.bin", {1, 2, 3, 4}}}))
      << "a path need not be UTF-8";
}

}  // namespace
}  // namespace rodimus
