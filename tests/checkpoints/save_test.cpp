// Saving and loading on one rank; for several see save_mpi_test.cpp.
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "checkpoints/save.h"
#include "tests/checkpoints/example.h"

namespace rodimus {
namespace {

using namespace testing;

TEST(Save, RoundTrip) {
  const TemporaryFolder run;
  const auto folder = save_example(run.path() / "new" / "folder", 1000);
  EXPECT_EQ(folder, run.path() / "new" / "folder" / "step_00001000");
  EXPECT_EQ(names_in(folder),
            (std::vector<std::string>{"checkpoint.h5", "manifest.json", "rank_0000.h5"}));

  const CheckpointReader reader(folder);
  const TrainState want = example_state(1000);
  EXPECT_EQ(reader.folder(), folder);
  EXPECT_EQ(reader.state().step, 1000);
  EXPECT_EQ(reader.state().sample, want.sample);
  EXPECT_EQ(reader.state().state_json, want.state_json);
  EXPECT_EQ(reader.state().config_toml, want.config_toml);
  EXPECT_EQ(reader.state().tokenizer_hash, want.tokenizer_hash);
  EXPECT_EQ(reader.world_size(), 1);
  EXPECT_EQ(reader.groups(), kGroups);
  EXPECT_EQ(reader.layout().size, example_layout().size);
  require_same_tensors(example_layout(), reader);
  reader.verify();
  expect_example(reader, {0, example_layout().size});
  for (const TensorEntry& tensor : example_layout().tensors) {
    EXPECT_EQ(reader.read_tensor("adam_v", tensor.name), example_tensor("adam_v", tensor));
  }
}

TEST(Save, EveryRangeReads) {
  const TemporaryFolder run;
  const CheckpointReader reader(save_example(run.path(), 1));
  const int64_t size = example_layout().size;
  for (int64_t begin = 0; begin <= size; begin += 37) {
    for (int64_t end = begin; end <= size; end += 53) expect_example(reader, {begin, end});
  }
  std::vector<float> none(1);
  EXPECT_THROW(reader.read("params", {0, size + 1}, none.data()), Error);
  EXPECT_THROW(reader.read("params", {-1, 0}, none.data()), Error);
  EXPECT_NE(failure_of([&] {
              reader.read("ema", {0, 1}, none.data());
            }).find("no group 'ema'"),
            std::string::npos);
  EXPECT_NE(failure_of([&] { reader.read_tensor("params", "tail"); }).find("no tensor 'tail'"),
            std::string::npos);
}

// Values that are unequal to themselves, or equal to other values, must keep their bits.
TEST(Save, KeepsBits) {
  const TemporaryFolder run;
  const auto single = make_single();
  const FlatLayout layout{{{"w", {2, 3}, 0}}, 6};
  const uint32_t bits[6] = {0x7fc12345, 0xff800000, 0x80000000, 0x00000001, 0x7f7fffff, 0xffc00001};
  float values[6], got[6];
  std::memcpy(values, bits, sizeof bits);
  const OwnedArray array{"params", values};
  const CheckpointReader reader(
      save_checkpoint(run.path(), {}, layout, {0, 6}, {&array, 1}, *single));
  reader.read("params", {0, 6}, got);
  EXPECT_EQ(std::memcmp(got, bits, sizeof bits), 0);
}

// More than one chunk (2^18 elements), and a length that is not a multiple of a chunk.
TEST(Save, LargeTensor) {
  const TemporaryFolder run;
  const auto single = make_single();
  const FlatLayout layout{{{"w", {1031, 1033}, 0}}, 1031 * 1033};
  std::vector<float> values(1031 * 1033), got(values.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const OwnedArray array{"params", values.data()};
  const CheckpointReader reader(
      save_checkpoint(run.path(), {}, layout, {0, layout.size}, {&array, 1}, *single));
  reader.read("params", {0, layout.size}, got.data());
  EXPECT_EQ(got, values);
  reader.read("params", {262143, 262147}, got.data());
  EXPECT_EQ(got[0], 262143.0f);
  EXPECT_EQ(got[3], 262146.0f);
}

TEST(Save, AnotherLayoutFindsTensorsByName) {
  const TemporaryFolder run;
  const CheckpointReader reader(save_example(run.path(), 1));
  FlatLayout other;  // reversed order, alignment 5
  for (TensorEntry tensor : example_layout().tensors) {
    other.tensors.insert(other.tensors.begin(), std::move(tensor));
  }
  for (TensorEntry& tensor : other.tensors) {
    tensor.offset = other.size;
    other.size = (other.size + tensor.numel() + 4) / 5 * 5 + 5;
  }
  require_same_tensors(other, reader);
  std::vector<float> got(static_cast<size_t>(other.size) - 30, -9.0f);
  reader.read("adam_m", other, {10, other.size - 20}, got.data());
  EXPECT_EQ(got, example_flat("adam_m", other, {10, other.size - 20}));
}

TEST(Save, RequireSameTensorsNamesTheFirstDifference) {
  const TemporaryFolder run;
  const CheckpointReader reader(save_example(run.path(), 1));
  const auto message = [&](const std::function<void(FlatLayout&)>& change) {
    FlatLayout layout = example_layout();
    change(layout);
    return failure_of([&] { require_same_tensors(layout, reader); });
  };
  EXPECT_EQ(message([](FlatLayout&) {}), "nothing was thrown");
  const std::string shape = message([](FlatLayout& l) { l.tensors[1].shape = {48, 4, 1}; });
  EXPECT_NE(shape.find("'blocks.0.mixer.conv.weight' is (48, 1, 4) there, (48, 4, 1) in this"),
            std::string::npos)
      << shape;
  const std::string missing = message([](FlatLayout& l) { l.tensors[5].name = "lm_head.weight"; });
  EXPECT_NE(missing.find("it has no tensor 'lm_head.weight' (13, 11)"), std::string::npos)
      << missing;
  const std::string extra = message([](FlatLayout& l) { l.tensors.pop_back(); });
  EXPECT_NE(extra.find("it has the tensor 'head.weight' (13, 11), which this model lacks"),
            std::string::npos)
      << extra;
}

TEST(Save, TheSameStepIsReplaced) {
  const TemporaryFolder run;
  const auto first = save_example(run.path(), 5);
  const std::string before = read_bytes(first / "manifest.json");
  EXPECT_EQ(save_example(run.path(), 5), first);
  EXPECT_NE(read_bytes(first / "manifest.json"), before);
  CheckpointReader(first).verify();
  EXPECT_EQ(names_in(run.path()), std::vector<std::string>{"step_00000005"});
}

TEST(Save, WritesOnAnotherThread) {
  const TemporaryFolder run;
  const auto single = make_single();
  const FlatLayout layout = example_layout();
  const ExampleArrays example(layout, {0, layout.size});
  CheckpointSave save(run.path(), example_state(3), layout, {0, layout.size}, example.arrays,
                      *single);
  std::thread([&] { save.write(); }).join();
  EXPECT_TRUE(list_checkpoints(run.path()).empty());  // not before commit()
  CheckpointReader(save.commit(*single)).verify();
}

TEST(Save, UncommittedLeavesNothing) {
  const TemporaryFolder run;
  const auto single = make_single();
  const FlatLayout layout = example_layout();
  const ExampleArrays example(layout, {0, layout.size});
  {
    CheckpointSave save(run.path(), example_state(3), layout, {0, layout.size}, example.arrays,
                        *single);
    save.write();
    EXPECT_EQ(names_in(run.path()).size(), 1u);
  }
  EXPECT_TRUE(names_in(run.path()).empty());
  CheckpointSave unwritten(run.path(), example_state(3), layout, {0, layout.size}, example.arrays,
                           *single);
  EXPECT_THROW(unwritten.commit(*single), Error);
  EXPECT_TRUE(names_in(run.path()).empty());
}

TEST(Save, RejectsWhatItCannotStore) {
  const TemporaryFolder run;
  const auto single = make_single();
  const float value = 1;
  const auto message = [&](const FlatLayout& layout, Range owned, OwnedArray array) {
    return failure_of([&] {
      save_checkpoint(run.path() / "r", {}, layout, owned, {&array, 1}, *single);
    });
  };
  const FlatLayout good{{{"w", {1}, 0}}, 1};
  EXPECT_NE(message({{{"a/b", {1}, 0}}, 1}, {0, 1}, {"params", &value}).find("reserved"),
            std::string::npos);
  EXPECT_NE(message(good, {0, 0}, {"params", &value}).find("own 0 of 1"), std::string::npos);
  EXPECT_NE(message(good, {0, 1}, {"Params/x", &value}).find("cannot be a group"),
            std::string::npos);
  EXPECT_NE(message(good, {0, 1}, {"params", nullptr}).find("null"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(run.path() / "r"));
}

}  // namespace
}  // namespace rodimus
