// A folder appears whole or not at all, and nothing that was there is touched.
#include "base/atomic_folder.h"

#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "tests/support/failure_of.h"
#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;

class AtomicFolders : public ::testing::Test {
 protected:
  void expect_published(const fs::path& written, const fs::path& found) {
    {
      AtomicFolder output(written);
      write_whole(output.temporary() / "file", "text");
      EXPECT_FALSE(fs::exists(found / "file"));
      output.publish();
    }
    EXPECT_EQ(testing::read_bytes(found / "file"), "text");
    EXPECT_FALSE(fs::exists(found.native() + ".tmp"));
  }

  testing::TemporaryFolder folder;
};

TEST_F(AtomicFolders, AppearsUnderItsNameOnceComplete) {
  expect_published(folder / "new", folder / "new");
  expect_published(folder / "parents/above/it", folder / "parents/above/it");
  expect_published(folder / "slash/", folder / "slash");
  fs::create_directory(folder / "empty");
  expect_published(folder / "empty", folder / "empty");
  fs::create_directory_symlink(folder / "target", folder / "link");
  fs::create_directory(folder / "target");
  expect_published(folder / "link", folder / "target");
}

TEST_F(AtomicFolders, VanishesUnlessPublished) {
  {
    AtomicFolder output(folder / "out");
    write_whole(output.temporary() / "file", "text");
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST_F(AtomicFolders, WhatIsThereStays) {
  testing::write_bytes(folder / "full/file", "mine");
  expect_error([&] { AtomicFolder{folder / "full"}; }, {"full is there and not empty"});
  testing::write_bytes(folder / "file", "mine");
  expect_error([&] { AtomicFolder{folder / "file"}; }, {"file is not a folder"});
  expect_error([&] { AtomicFolder{folder / "file/below"}; }, {"file", "cannot be created"});
  expect_error([&] { AtomicFolder{folder / std::string(300, 'n')}; },
               {"nnn", "File name too long"});
  fs::create_directory_symlink(folder / "nowhere", folder / "link");
  expect_error([&] { AtomicFolder{folder / "link"}; }, {"link is a link to nothing"});
  testing::write_bytes(folder / "busy.tmp/file", "mine");
  expect_error([&] { AtomicFolder{folder / "busy"}; }, {"busy.tmp is there", "remove it"});
  for (const char* name : {"full/file", "file", "busy.tmp/file"})
    EXPECT_EQ(testing::read_bytes(folder / name), "mine");
  AtomicFolder output(folder / "taken");
  testing::write_bytes(folder / "taken/file", "mine");
  expect_error([&] { output.publish(); }, {"cannot rename", "taken"});
  EXPECT_EQ(testing::read_bytes(folder / "taken/file"), "mine");
}

}  // namespace
}  // namespace rodimus
