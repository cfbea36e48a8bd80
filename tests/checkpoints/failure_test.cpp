// A save that cannot succeed, and a process that is killed: older checkpoints stay, and no partial
// one remains or counts.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "checkpoints/checkpoint.h"
#include "checkpoints/folders.h"
#include "tests/checkpoints/example.h"

namespace rodimus {
namespace {

using namespace testing;

namespace fs = std::filesystem;

// No file may grow beyond `bytes`: write() then fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_ = {};
};

// 0: the first write fails; then failures in the metadata, in the values, and in the last flush.
TEST(Failure, FullDisk) {
  const TemporaryFolder run;
  const fs::path older = save_example(run.path(), 10);
  const auto rank_file = static_cast<rlim_t>(fs::file_size(older / "rank_0000.h5"));
  const auto virtual_file = static_cast<rlim_t>(fs::file_size(older / "checkpoint.h5"));
  ASSERT_LT(rank_file, virtual_file);  // holds for this small model
  const size_t open_files = names_in("/proc/self/fd").size();
  for (const rlim_t bytes : {rlim_t{0}, rlim_t{1000}, rank_file / 2, rank_file - 1, rank_file,
                             virtual_file / 2, virtual_file - 1}) {
    std::string message;
    {
      const FileSizeLimit limit(bytes);
      message = failure_of([&] { save_example(run.path(), 11); });
    }
    const char* file = bytes < rank_file ? "rank_0000.h5" : "checkpoint.h5";
    EXPECT_NE(message.find(file), std::string::npos) << bytes << ": " << message;
    EXPECT_NE(message.find("File too large; free space or change run.output"), std::string::npos)
        << bytes << ": " << message;
    EXPECT_EQ(names_in(run.path()), std::vector<std::string>{"step_00000010"}) << bytes;
    CheckpointReader(older).verify();
    EXPECT_EQ(names_in("/proc/self/fd").size(), open_files) << bytes << ": a file stays open";
  }
  // The run continues, and so do its saves.
  CheckpointReader(save_example(run.path(), 11)).verify();
}

TEST(Failure, FullDiskKeepsTheFolderThatWouldBeReplaced) {
  const TemporaryFolder run;
  const fs::path folder = save_example(run.path(), 10);
  {
    const FileSizeLimit limit(5000);
    EXPECT_THROW(save_example(run.path(), 10), Error);
  }
  CheckpointReader(folder).verify();
}

TEST(Failure, TheRunFolderCannotBeMade) {
  const TemporaryFolder run;
  write_bytes(run.path() / "file", "not a folder");
  const std::string message = failure_of([&] { save_example(run.path() / "file" / "run", 1); });
  EXPECT_NE(message.find("file/run"), std::string::npos) << message;
  EXPECT_NE(message.find("Not a directory; change run.output"), std::string::npos) << message;
}

// A child saves step after step, each twice (the second save replaces the first), until SIGKILL, at
// a different moment in each round. Every committed folder must be intact, and none may be lost.
TEST(Failure, KilledAtAnyMoment) {
  const TemporaryFolder run;
  int temporary_left = 0;
  // Under a sanitizer, or on a busy machine, saves are slow: the moments are scaled to their
  // duration.
  const auto begin = std::chrono::steady_clock::now();
  save_example(run.path(), 0);
  const auto save_time = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - begin);
  constexpr int kRounds = 30, kMostRounds = 300;
  for (int round = 0; round < kRounds || (temporary_left == 0 && round < kMostRounds); ++round) {
    const size_t before = list_checkpoints(run.path()).size();
    const pid_t child = fork();
    if (child == 0) {
      for (int64_t step = 1000 * (round + 1);; ++step) {
        save_example(run.path(), step);
        save_example(run.path(), step);
      }
    }
    ASSERT_GT(child, 0);
    std::this_thread::sleep_for(std::max(std::chrono::microseconds(10000 + 997 * round),
                                         save_time / 2 + save_time * (round % kRounds) / 10));
    kill(child, SIGKILL);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);

    const std::vector<fs::path> folders = list_checkpoints(run.path());
    EXPECT_GE(folders.size(), before) << "lost a checkpoint";
    for (const fs::path& folder : folders) CheckpointReader(folder).verify();
    for (const std::string& name : names_in(run.path())) {
      const auto parsed = parse_step_folder(name);
      ASSERT_TRUE(parsed) << name;
      temporary_left += parsed->kind == FolderKind::temporary ? 1 : 0;
    }
    prune_checkpoints(run.path(), 2, 0, {});
    EXPECT_EQ(names_in(run.path()).size(), std::min<size_t>(2, folders.size()));
  }
  EXPECT_GT(temporary_left, 0);  // otherwise the kills came too early or too late to test anything
}

}  // namespace
}  // namespace rodimus
