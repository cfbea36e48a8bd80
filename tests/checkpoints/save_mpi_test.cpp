// Saves by several ranks, loads by any number of ranks. Runs under mpirun with 1, 2 and 3 ranks.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <thread>

#include "checkpoints/save.h"
#include "tests/checkpoints/example.h"
#include "tests/support/mpi_main.h"

namespace rodimus {
namespace {

using namespace testing;

namespace fs = std::filesystem;

// A folder that all ranks share, made and removed by rank 0.
class SharedFolder {
 public:
  SharedFolder() {
    if (world().rank() == 0) folder_ = std::make_unique<TemporaryFolder>();
    path_ = broadcast_text(world(), folder_ ? folder_->path().string() : "", 0);
  }
  ~SharedFolder() { world().barrier(); }
  const fs::path& path() const { return path_; }

 private:
  std::unique_ptr<TemporaryFolder> folder_;
  fs::path path_;
};

Range own_share(int64_t size) { return owned_range(size, world().rank(), world().world_size()); }

// Rank 0 ends at `first`, rank 1 of three at `second`.
Range share_by_ends(int64_t size, int64_t first, int64_t second) {
  const int64_t borders[] = {0, first, second, size};
  const int rank = world().rank();
  return {borders[rank], rank == world().world_size() - 1 ? size : borders[rank + 1]};
}

// Cuts within rows of the first and second tensors.
Range crooked_share(int64_t size) { return share_by_ends(size, 33, 171); }

// Ends in a gap and at an odd element; rank 1 of three has nothing.
Range idle_share(int64_t size) { return share_by_ends(size, 40, 40); }

TEST(SaveOnRanks, LoadsOnAnyNumberOfRanks) {
  const int64_t size = example_layout().size;
  for (const Range share : {own_share(size), crooked_share(size), idle_share(size)}) {
    const SharedFolder run;
    const fs::path folder = save_example(run.path(), 1000, share, world());
    EXPECT_EQ(names_in(folder).size(), static_cast<size_t>(world().world_size()) + 2);
    const CheckpointReader reader(folder);
    reader.verify();
    EXPECT_EQ(reader.world_size(), world().world_size());
    for (const int ranks : {1, 2, 3, 5}) {
      for (int rank = 0; rank < ranks; ++rank) {
        expect_example(reader, owned_range(size, rank, ranks));
      }
    }
    for (int64_t begin = 0; begin < size; begin += 61) {
      for (int64_t end = begin; end <= size; end += 97) expect_example(reader, {begin, end});
    }
    for (const std::string& group : kGroups) {
      for (const TensorEntry& tensor : example_layout().tensors) {
        EXPECT_EQ(reader.read_tensor(group, tensor.name), example_tensor(group, tensor));
      }
    }
  }
}

// The folder that check_h5py.py reads afterwards, see CMakeLists.txt.
TEST(SaveOnRanks, LeavesAFolderForH5py) {
  const char* output = std::getenv("RODIMUS_TEST_OUTPUT");
  ASSERT_NE(output, nullptr);
  const int64_t size = example_layout().size;
  save_example(output, 1, own_share(size), world());
  save_example(output, 2, crooked_share(size), world());
  save_example(output, 3, idle_share(size), world());
  EXPECT_EQ(list_checkpoints(output).size(), 3u);
}

TEST(SaveOnRanks, EveryRankFileIsChecked) {
  const SharedFolder run;
  const fs::path folder = save_example(run.path(), 4, own_share(example_layout().size), world());
  const fs::path other = save_example(run.path(), 5, own_share(example_layout().size), world());
  if (world().rank() == 0) {
    for (const std::string& name : names_in(folder)) {
      const std::string good = read_bytes(folder / name);
      const auto expect_named = [&] {
        const std::string message = failure_of([&] { CheckpointReader(folder).verify(); });
        EXPECT_NE(message.find(name), std::string::npos) << message;
      };
      fs::remove(folder / name);
      expect_named();
      for (size_t i = 0; i <= 40; ++i) {
        std::string bad = good;
        bad[i * (good.size() - 1) / 40] ^= 16;
        write_bytes(folder / name, bad);
        expect_named();
      }
      if (name.starts_with("rank_")) {
        write_bytes(folder / name, read_bytes(other / name));
        expect_named();
      }
      write_bytes(folder / name, good);
    }
    CheckpointReader(folder).verify();
    // Two rank files of the same save, swapped.
    if (world().world_size() == 3) {
      fs::rename(folder / "rank_0000.h5", folder / "x");
      fs::rename(folder / "rank_0001.h5", folder / "rank_0000.h5");
      fs::rename(folder / "x", folder / "rank_0001.h5");
      EXPECT_THROW(CheckpointReader reader(folder), Error);
    }
  }
  world().barrier();
}

TEST(SaveOnRanks, AFailureOfOneRankIsTheFailureOfAll) {
  const int last = world().world_size() - 1;
  const SharedFolder run;
  const FlatLayout layout = example_layout();
  const Range owned = own_share(layout.size);
  const fs::path older = save_example(run.path(), 1, owned, world());
  const ExampleArrays example(layout, owned);
  {
    CheckpointSave save(run.path(), example_state(2), layout, owned, example.arrays, world());
    // The last rank finds a folder in place of its file.
    world().barrier();
    if (world().rank() == last) {
      for (const auto& entry : fs::directory_iterator(run.path())) {
        const std::string name = entry.path().filename().string();
        if (name.find(".tmp-") != name.npos)
          fs::create_directory(entry.path() / concat("rank_000", last, ".h5"));
      }
    }
    save.write();
    const std::string message = failure_of([&] { save.commit(world()); });
    EXPECT_NE(message.find(concat("rank_000", last, ".h5: Is a directory")), std::string::npos)
        << message;
    const std::string start = last > 0 ? concat("rank ", last, ": ") : "";
    EXPECT_EQ(message.find(start + "cannot"), 0u) << message;
  }
  EXPECT_EQ(names_in(run.path()), std::vector<std::string>{"step_00000001"});
  CheckpointReader(older).verify();
}

TEST(SaveOnRanks, RefusesFoldersThatAreNotShared) {
  if (world().world_size() == 1) return;
  const TemporaryFolder mine;  // different on each rank, like a local disk
  const std::string message =
      failure_of([&] { save_example(mine.path(), 1, own_share(example_layout().size), world()); });
  EXPECT_NE(message.find("run.output must be on a file system that all ranks share"),
            std::string::npos)
      << message;
  EXPECT_EQ(message.find("rank 1: "), 0u) << message;
  EXPECT_TRUE(names_in(mine.path()).empty());
}

// A file that its rank wrote but rank 0 cannot see.
TEST(SaveOnRanks, NoticesALostFile) {
  const SharedFolder run;
  const FlatLayout layout = example_layout();
  const Range owned = own_share(layout.size);
  const ExampleArrays example(layout, owned);
  CheckpointSave save(run.path(), example_state(2), layout, owned, example.arrays, world());
  save.write();
  const int last = world().world_size() - 1;
  if (world().rank() == last) {
    for (const auto& entry : fs::directory_iterator(run.path()))
      fs::remove(entry.path() / concat("rank_000", last, ".h5"));
  }
  const std::string message = failure_of([&] { save.commit(world()); });
  EXPECT_NE(message.find("rank 0 sees no such file"), std::string::npos) << message;
  EXPECT_NE(message.find("that all ranks share"), std::string::npos) << message;
  EXPECT_TRUE(names_in(run.path()).empty());
}

TEST(SaveOnRanks, RanksMustAgree) {
  if (world().world_size() == 1) return;
  const SharedFolder run;
  const FlatLayout layout = example_layout();
  const Range owned = own_share(layout.size);
  EXPECT_NE(failure_of([&] {
              save_example(run.path(), world().rank(), owned, world());
            }).find("step, sample and tensors"),
            std::string::npos);
  EXPECT_NE(failure_of([&] {
              save_example(run.path(), 1, {0, layout.size}, world());
            }).find("rank 1 owns [0, "),
            std::string::npos);
  EXPECT_TRUE(names_in(run.path()).empty());
}

// Writing concurrently with other communication, as training does.
TEST(SaveOnRanks, WritesBesideTraining) {
  const SharedFolder run;
  const FlatLayout layout = example_layout();
  const Range owned = own_share(layout.size);
  const ExampleArrays example(layout, owned);
  CheckpointSave save(run.path(), example_state(9), layout, owned, example.arrays, world());
  std::thread writer([&] { save.write(); });
  double sum = 1;
  for (int i = 0; i < 50; ++i) world().all_reduce_sum(std::span(&sum, 1));
  writer.join();
  CheckpointReader(save.commit(world())).verify();
}

}  // namespace
}  // namespace rodimus
