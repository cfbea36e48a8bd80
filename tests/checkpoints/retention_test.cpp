#include <gtest/gtest.h>

#include "checkpoints/checkpoint.h"
#include "checkpoints/files.h"
#include "checkpoints/folders.h"
#include "tests/checkpoints/example.h"

namespace rodimus {
namespace {

using namespace testing;

namespace fs = std::filesystem;

class Retention : public ::testing::Test {
 protected:
  void make(const std::string& name) {
    fs::create_directories(run_.path() / name);
    write_bytes(run_.path() / name / "rank_0000.h5", name);
  }
  std::vector<std::string> listed() const {
    std::vector<std::string> names;
    for (const fs::path& path : list_checkpoints(run_.path())) names.push_back(path.filename());
    return names;
  }
  TemporaryFolder run_;
};

TEST(StepFolder, Names) {
  EXPECT_EQ(step_folder_name(1000), "step_00001000");
  EXPECT_EQ(step_folder_name(1234567890), "step_1234567890");
  const auto kind = [](const char* name, int64_t step, FolderKind want) {
    const auto parsed = parse_step_folder(name);
    return parsed && parsed->step == step && parsed->kind == want;
  };
  EXPECT_TRUE(kind("step_00000000", 0, FolderKind::committed));
  EXPECT_TRUE(kind("step_1234567890", 1234567890, FolderKind::committed));
  EXPECT_TRUE(kind("step_00000012.tmp-ab", 12, FolderKind::temporary));
  EXPECT_TRUE(kind("step_00000012.replaced-ab", 12, FolderKind::replaced));
  for (const char* name :
       {"", "step_", "step_12", "step_000000012", "step_00000012x", "Step_00000012",
        "step_-0000012", "step_00000012.bak", "step_99999999999999999999"}) {
    EXPECT_FALSE(parse_step_folder(name)) << name;
  }
}

TEST_F(Retention, ListsCommittedFoldersByStep) {
  for (const char* name : {"step_00000200", "step_00000030", "step_100000000",
                           "step_00000031.tmp-a", "notes", "step_7"})
    make(name);
  write_bytes(run_.path() / "step_00000040", "a file");
  EXPECT_EQ(listed(),
            (std::vector<std::string>{"step_00000030", "step_00000200", "step_100000000"}));
  EXPECT_TRUE(list_checkpoints(run_.path() / "none").empty());
  EXPECT_THROW(list_checkpoints(run_.path() / "step_00000040"), Error);
}

TEST_F(Retention, PruneKeepsTheNewestAndTheMilestones) {
  for (int step = 1; step <= 10; ++step) make(step_folder_name(step * 10));
  make("notes");
  prune_checkpoints(run_.path(), 3, 50, run_.path() / "step_00000020");
  EXPECT_EQ(listed(), (std::vector<std::string>{"step_00000020", "step_00000050", "step_00000080",
                                                "step_00000090", "step_00000100"}));
  EXPECT_TRUE(fs::exists(run_.path() / "notes"));
  prune_checkpoints(run_.path(), 0, 0, {});  // keeps all
  EXPECT_EQ(listed().size(), 5u);
  prune_checkpoints(run_.path(), 1, 0, {});
  EXPECT_EQ(listed(), std::vector<std::string>{"step_00000100"});
  prune_checkpoints(run_.path() / "none", 1, 0, {});
  EXPECT_THROW(prune_checkpoints(run_.path(), -1, 0, {}), Error);
}

TEST_F(Retention, PruneRemovesWhatAKilledSaveLeft) {
  make("step_00000010");
  make("step_00000020.tmp-0123");
  prune_checkpoints(run_.path(), 0, 0, {});
  EXPECT_EQ(names_in(run_.path()), std::vector<std::string>{"step_00000010"});
}

// Killed between the two renames of a replacement: the old folder still counts, and gets its name
// back. Killed after them: it is removed.
TEST_F(Retention, AReplacedFolderCountsUntilItsReplacementIsThere) {
  make("step_00000010.replaced-a");
  EXPECT_EQ(listed(), std::vector<std::string>{"step_00000010.replaced-a"});
  prune_checkpoints(run_.path(), 0, 0, {});
  EXPECT_EQ(listed(), std::vector<std::string>{"step_00000010"});
  make("step_00000010.replaced-b");
  EXPECT_EQ(listed(), std::vector<std::string>{"step_00000010"});
  prune_checkpoints(run_.path(), 0, 0, {});
  EXPECT_EQ(names_in(run_.path()), std::vector<std::string>{"step_00000010"});
  EXPECT_EQ(read_bytes(run_.path() / "step_00000010" / "rank_0000.h5"), "step_00000010.replaced-a");
}

TEST_F(Retention, ReplaceFolder) {
  make("new");
  const fs::path to = run_.path() / "to", aside = run_.path() / "aside";
  replace_folder(run_.path() / "new", to, aside);
  EXPECT_EQ(names_in(run_.path()), std::vector<std::string>{"to"});
  make("newer");
  replace_folder(run_.path() / "newer", to, aside);
  EXPECT_EQ(names_in(run_.path()), std::vector<std::string>{"to"});
  EXPECT_EQ(read_bytes(to / "rank_0000.h5"), "newer");
  EXPECT_THROW(replace_folder(run_.path() / "absent", to, aside), Error);
  EXPECT_EQ(read_bytes(to / "rank_0000.h5"), "newer");
}

}  // namespace
}  // namespace rodimus
