// A checkpoint damaged in every way that a disk or a person can: the reader must name the file.
#include <gtest/gtest.h>

#include <cstring>

#include "checkpoints/checkpoint.h"
#include "tests/checkpoints/example.h"

// For AddressSanitizer: HDF5 itself leaks when it gives up on a damaged file.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace rodimus {
namespace {

using namespace testing;

namespace fs = std::filesystem;

class Damage : public ::testing::Test {
 protected:
  Damage() : folder_(save_example(run_.path(), 12)) {}

  static std::string open_and_verify(const fs::path& folder) {
    return failure_of([&] { CheckpointReader(folder).verify(); });
  }

  TemporaryFolder run_;
  fs::path folder_;
};

TEST_F(Damage, EveryFileMissingEmptyOrTruncated) {
  for (const std::string& name : names_in(folder_)) {
    const std::string good = read_bytes(folder_ / name);
    const auto expect_named = [&](const char* damage) {
      const std::string message = open_and_verify(folder_);
      EXPECT_NE(message.find(name), std::string::npos) << damage << ": " << message;
    };
    fs::remove(folder_ / name);
    expect_named("missing");
    fs::create_directory(folder_ / name);
    expect_named("a folder");
    fs::remove(folder_ / name);
    for (const size_t size : {size_t{0}, size_t{1}, good.size() / 2, good.size() - 1}) {
      write_bytes(folder_ / name, good.substr(0, size));
      expect_named("truncated");
    }
    write_bytes(folder_ / name, good + "x");
    expect_named("longer");
    write_bytes(folder_ / name, std::string(good.size(), '\0'));
    expect_named("zeros");
    write_bytes(folder_ / name, good);
  }
  EXPECT_EQ(open_and_verify(folder_), "nothing was thrown");
}

TEST_F(Damage, FlippedBits) {
  for (const std::string& name : names_in(folder_)) {
    const std::string good = read_bytes(folder_ / name);
    // The first 64 bytes, and 41 positions spread over the file, including the last byte.
    std::vector<size_t> positions;
    for (size_t i = 0; i < 64; ++i) positions.push_back(i);
    for (size_t i = 0; i <= 40; ++i) positions.push_back(i * (good.size() - 1) / 40);
    for (const size_t at : positions) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 1 << at % 8);
      write_bytes(folder_ / name, bad);
      const std::string message = open_and_verify(folder_);
      ASSERT_NE(message.find(name), std::string::npos) << "byte " << at << ": " << message;
    }
    write_bytes(folder_ / name, good);
  }
  EXPECT_EQ(open_and_verify(folder_), "nothing was thrown");
}

// Even without verify(), read() notices a changed value by the checksum of its chunk.
TEST_F(Damage, ReadNamesTheTensor) {
  const fs::path file = folder_ / "rank_0000.h5";
  std::string bytes = read_bytes(file);
  const float value = example_value("adam_m", "head.weight", 60);
  char pattern[sizeof value];
  std::memcpy(pattern, &value, sizeof value);
  const size_t at = bytes.find(std::string(pattern, sizeof value));
  ASSERT_NE(at, std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  write_bytes(file, bytes);

  const CheckpointReader reader(folder_);  // the cheap checks pass
  EXPECT_EQ(reader.read_tensor("adam_m", "embedding.weight").size(), 35u);
  for (const std::string& message :
       {failure_of([&] { reader.read_tensor("adam_m", "head.weight"); }),
        failure_of([&] { reader.verify(); })}) {
    EXPECT_NE(message.find("rank_0000.h5: adam_m/head.weight"), std::string::npos) << message;
  }
}

TEST_F(Damage, FilesOfAnotherSave) {
  const TemporaryFolder other_run;
  const fs::path other = save_example(other_run.path(), 12);  // same step, size and values
  for (const std::string& name : names_in(folder_)) {
    const std::string good = read_bytes(folder_ / name);
    write_bytes(folder_ / name, read_bytes(other / name));
    const std::string message = failure_of([&] { CheckpointReader reader(folder_); });
    EXPECT_NE(message, "nothing was thrown") << name;
    if (name == "rank_0000.h5") {
      EXPECT_NE(message.find("rank_0000.h5 belongs to another save: its id is"), std::string::npos)
          << message;
    }
    write_bytes(folder_ / name, good);
  }
  EXPECT_EQ(open_and_verify(folder_), "nothing was thrown");
}

TEST_F(Damage, NotACheckpoint) {
  EXPECT_NE(open_and_verify(run_.path() / "step_00000099").find("no such folder"),
            std::string::npos);
  EXPECT_NE(open_and_verify(run_.path()).find("no manifest.json"), std::string::npos);
}

TEST_F(Damage, TheNewestSoundOneIsOffered) {
  const fs::path newer = save_example(run_.path(), 13), newest = save_example(run_.path(), 14);
  fs::remove(newest / "rank_0000.h5");
  std::string bytes = read_bytes(newer / "checkpoint.h5");
  bytes[bytes.size() / 2] ^= 1;
  write_bytes(newer / "checkpoint.h5", bytes);

  std::vector<std::string> problems;
  EXPECT_EQ(newest_sound_checkpoint(run_.path(), &problems), folder_);
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_NE(problems[0].find("step_00000014/rank_0000.h5 is missing"), std::string::npos)
      << problems[0];
  EXPECT_NE(problems[1].find("step_00000013/checkpoint.h5 is damaged"), std::string::npos)
      << problems[1];
  fs::remove(folder_ / "manifest.json");
  EXPECT_EQ(newest_sound_checkpoint(run_.path(), nullptr), std::nullopt);
  EXPECT_EQ(newest_sound_checkpoint(run_.path() / "none", nullptr), std::nullopt);
}

}  // namespace
}  // namespace rodimus
