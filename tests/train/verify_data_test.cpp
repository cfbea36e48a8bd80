// Ranks share the reading of shards and agree on what they find. Runs under mpirun with 1, 2 and 3
// ranks.
#include "train/verify_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <numeric>

#include "base/checksum.h"
#include "data/dataset.h"
#include "data/shard_writer.h"
#include "data/verified_files.h"
#include "tests/support/mpi_main.h"
#include "tests/support/temporary_folder.h"
#include "train/signals.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::world;

constexpr int kShards = 5;

// Shards that all ranks see; with_json false: as made by other tools.
class SharedShards {
 public:
  explicit SharedShards(bool with_json = true) {
    if (leads()) {
      folder_ = std::make_unique<TemporaryFolder>();
      for (int i = 0; i < kShards; ++i) write_shard(folder_->path() / name(i), i, with_json);
    }
    path_ = broadcast_text(world(), folder_ ? folder_->path().string() : "", 0);
  }
  ~SharedShards() { world().barrier(); }

  static std::string name(int i) { return "data/s" + std::to_string(i); }
  static bool leads() { return world().rank() == 0; }
  static void write_shard(const fs::path& prefix, int seed, bool with_json) {
    fs::create_directories(prefix.parent_path());
    ShardWriter writer(prefix, {.vocab_size = 100});
    for (int d = 0; d < 4; ++d)
      writer.add_document(std::vector<int32_t>(static_cast<size_t>(30 + 20 * seed), 10 * d + seed),
                          1);
    writer.close();
    writer.publish();
    if (!with_json) fs::remove(prefix.native() + ".json");
  }

  // Runs f on rank 0 while the others wait.
  template <class F>
  void change(F&& f) const {
    world().barrier();
    if (leads()) f();
    world().barrier();
  }
  // Flips a bit without changing the file time, as a failing disk does.
  void rot(const std::string& file) const {
    change([&] {
      const auto time = fs::last_write_time(path_ / file);
      flip(path_ / file);
      fs::last_write_time(path_ / file, time);
    });
  }
  static void flip(const fs::path& file) {
    std::string bytes = testing::read_bytes(file);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    testing::write_bytes(file, bytes);
  }
  fs::path memory() const { return path_ / "run" / kVerifiedFile; }
  const fs::path& path() const { return path_; }

  // The error message, the same on every rank; "" if all is well.
  std::string verify(int64_t vocab_size = 100, bool read = true, const char* data = "data") const {
    const std::vector<Shard> shards = open_shards({path_ / data}, {});
    std::vector<const Shard*> pointers;
    for (const Shard& shard : shards) pointers.push_back(&shard);
    std::string message;
    try {
      verify_shards(pointers, vocab_size, {.read = read, .memory = memory(), .remember = true},
                    world());
    } catch (const SharedError& error) {
      message = error.what();
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
    EXPECT_EQ(broadcast_text(world(), message, 0), message) << "on rank " << world().rank();
    world().barrier();
    return message;
  }
  size_t remembered() const {
    const size_t count = parse_verified(testing::read_bytes(memory())).size();
    world().barrier();
    return count;
  }

 private:
  std::unique_ptr<TemporaryFolder> folder_;
  fs::path path_;
};

void expect_damage(const std::string& message, const std::string& file) {
  EXPECT_NE(message.find(file), std::string::npos) << message;
  EXPECT_NE(message.find("damaged"), std::string::npos) << message;
}

TEST(ShareWork, LargestFirstToWhoeverHasLeast) {
  EXPECT_EQ(share_work({}, 3), std::vector<int>{});
  EXPECT_EQ(share_work({5, 5, 5}, 1), (std::vector<int>{0, 0, 0}));
  EXPECT_EQ(share_work({1, 9, 4, 4}, 2), (std::vector<int>{1, 0, 1, 1}));
  std::vector<uint64_t> sizes(3000);
  std::iota(sizes.begin(), sizes.end(), uint64_t{1000});
  const auto owners = share_work(sizes, 7);
  std::vector<uint64_t> load(7, 0);
  for (size_t i = 0; i < sizes.size(); ++i) load[static_cast<size_t>(owners[i])] += sizes[i];
  const auto [least, most] = std::minmax_element(load.begin(), load.end());
  EXPECT_LT(*most - *least, 4000u);
  EXPECT_EQ(share_work({0, 0}, 2), share_work({0, 0}, 2));
}

TEST(VerifyOnRanks, EveryFileIsReadOnceAndRemembered) {
  const SharedShards shards;
  EXPECT_EQ(shards.verify(), "");
  EXPECT_EQ(shards.remembered(), 2u * kShards);
  const VerifiedFiles files = parse_verified(testing::read_bytes(shards.memory()));
  for (int i = 0; i < kShards; ++i) {
    for (const char* end : {".bin", ".idx"}) {
      const std::string path = (shards.path() / (SharedShards::name(i) + end)).native();
      ASSERT_TRUE(files.contains(path)) << path;
      EXPECT_EQ(files.at(path).xxh64, xxh64(testing::read_bytes(path)));
      EXPECT_EQ(files.at(path).bytes, fs::file_size(path));
    }
  }
}

TEST(VerifyOnRanks, DamageInAnyFileIsFoundByAll) {
  const SharedShards shards;
  for (int i = 0; i < kShards; ++i) {
    const std::string file = SharedShards::name(i) + ".bin";
    shards.rot(file);
    expect_damage(shards.verify(), file);
    EXPECT_LT(shards.remembered(), 2u * kShards) << "what failed is not remembered";
    expect_damage(shards.verify(), file);
    EXPECT_EQ(shards.verify(100, /*read=*/false), "") << "data.verify = false";
    shards.rot(file);
    shards.change([&] { fs::remove(shards.memory()); });
  }
}

TEST(VerifyOnRanks, WhatWasSoundBeforeAnErrorIsRemembered) {
  const SharedShards shards;
  shards.rot(SharedShards::name(0) + ".bin");  // the smallest: the last one that its reader reaches
  EXPECT_NE(shards.verify(), "");
  EXPECT_GT(shards.remembered(), 0u);
  shards.rot(SharedShards::name(0) + ".bin");
  EXPECT_EQ(shards.verify(), "");
  EXPECT_EQ(shards.remembered(), 2u * kShards);
}

TEST(VerifyOnRanks, MemorySparesReadingUntilAFileChanges) {
  const SharedShards shards;
  ASSERT_EQ(shards.verify(), "");
  const std::string file = SharedShards::name(3) + ".bin";
  shards.rot(file);
  EXPECT_EQ(shards.verify(), "") << "size and time are those that were verified: not read";
  const std::string memory = testing::read_bytes(shards.memory());
  // Deleting the record forces a reread; so does a damaged record.
  for (const std::string& text :
       {std::string(), memory.substr(0, memory.size() / 2), std::string("{}")}) {
    shards.change([&] { testing::write_bytes(shards.memory(), text); });
    expect_damage(shards.verify(), file);
  }
  shards.change([&] {
    testing::write_bytes(shards.memory(), memory);
    const auto time = fs::last_write_time(shards.path() / file);
    fs::last_write_time(shards.path() / file, time + std::chrono::nanoseconds(1000));
  });
  expect_damage(shards.verify(), file);
}

TEST(VerifyOnRanks, AnotherChecksumInTheSidecarIsReadAgain) {
  const SharedShards shards;
  ASSERT_EQ(shards.verify(), "");
  // The .json of different tokens: the files themselves are untouched.
  shards.change([&] {
    const fs::path json = shards.path() / (SharedShards::name(2) + ".json");
    ShardInfo info = *read_shard_info(json);
    info.bin_xxh64 ^= 1;
    testing::write_bytes(json, to_json(info));
  });
  expect_damage(shards.verify(), SharedShards::name(2) + ".bin");
}

TEST(VerifyOnRanks, StructureIsCheckedEvenWhenEverythingIsKnown) {
  const SharedShards shards(/*with_json=*/false);
  ASSERT_EQ(shards.verify(), "");
  shards.change([&] {
    const fs::path idx = shards.path() / (SharedShards::name(4) + ".idx");
    std::string bytes = testing::read_bytes(idx);
    bytes[34] = static_cast<char>(bytes[34] ^ 1);  // the size of the first sequence
    testing::write_bytes(idx, bytes);
  });
  EXPECT_NE(shards.verify().find("s4.idx: sequence 1"), std::string::npos);
  EXPECT_NE(shards.verify(100, /*read=*/false).find("s4.idx"), std::string::npos);
}

TEST(VerifyOnRanks, TokensOfOtherTools) {
  const SharedShards shards(/*with_json=*/false);
  EXPECT_NE(shards.verify(34).find("s4.bin: token 34"), std::string::npos);
  EXPECT_EQ(shards.verify(35), "");
  EXPECT_EQ(shards.remembered(), size_t{kShards}) << "of an index only the structure is checked";
  EXPECT_EQ(shards.verify(35), "");
  EXPECT_NE(shards.verify(34).find("s4.bin: token 34"), std::string::npos)
      << "a smaller vocabulary";
}

TEST(VerifyOnRanks, TheVocabularyOfTheSidecarMustFit) {
  const SharedShards shards;
  ASSERT_EQ(shards.verify(), "");
  EXPECT_NE(shards.verify(99).find("written with a vocabulary of 100"), std::string::npos);
}

// As on machines with local disks: each rank has its own copy, and all of it must be intact.
TEST(VerifyOnRanks, CopiesAreReadByThoseWhoUseThem) {
  const SharedShards shards;
  const std::string mine = "copy" + std::to_string(world().rank());
  fs::copy(shards.path() / "data", shards.path() / mine);
  world().barrier();
  EXPECT_EQ(shards.verify(100, true, mine.c_str()), "");
  const int last = world().world_size() - 1;
  for (int i = 0; i < kShards; ++i) {
    shards.change([&] { fs::remove(shards.memory()); });
    const fs::path file =
        shards.path() / ("copy" + std::to_string(last)) / ("s" + std::to_string(i) + ".bin");
    shards.change([&] { SharedShards::flip(file); });
    expect_damage(shards.verify(100, true, mine.c_str()), file.native());
    shards.change([&] { SharedShards::flip(file); });
  }
  // Data that differs from rank 0's is not a copy.
  if (world().rank() == last && last > 0)
    SharedShards::write_shard(shards.path() / mine / "s1", 9, true);
  world().barrier();
  const std::string message = shards.verify(100, true, mine.c_str());
  if (last > 0) {
    EXPECT_NE(message.find("shards (number, sizes, checksums)"), std::string::npos) << message;
  }
}

// This must be the last test, because a signal cannot be reset.
TEST(VerifyOnRanks, ASignalToOneRankStopsAllAndLosesNothing) {
  const SharedShards shards;
  install_stop_signals();
  if (world().rank() == world().world_size() - 1) std::raise(SIGUSR1);
  const std::string message = shards.verify();
  EXPECT_NE(message.find("stopped by a signal"), std::string::npos) << message;
  EXPECT_EQ(shards.remembered() > 0, world().world_size() > 1) << "what the others had read";
}

}  // namespace
}  // namespace rodimus
