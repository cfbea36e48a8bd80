// The parts that do not use HDF5: checksum, flat-buffer arithmetic, the two JSON texts.
#include <gtest/gtest.h>

#include "base/checksum.h"
#include "checkpoints/layout.h"
#include "checkpoints/metadata.h"
#include "tests/checkpoints/example.h"

namespace rodimus {
namespace {

using namespace testing;

// Bytes (7 i + 1) mod 256; expected values from libxxhash 0.8.1 (XXH64, seed 0).
TEST(Xxh64, AgreesWithTheReferenceLibrary) {
  const std::pair<size_t, uint64_t> cases[] = {
      {0, 0xef46db3751d8e999},  {1, 0x8a4127811b21e730},   {3, 0xb6e6c910c2fd373a},
      {4, 0x22eda2cf6af4c124},  {7, 0x34084d91a233a751},   {8, 0xc6f1803a5e0b3222},
      {31, 0x6ab1c40e29f50073}, {32, 0x5a0756fbe9ecd3d1},  {33, 0xdc50cdc37bb9c183},
      {64, 0x90083da9cdb9d795}, {101, 0x6bf452176f29bc13}, {1000, 0x6be03acbf959c413}};
  for (const auto& [n, want] : cases) {
    std::string bytes(n, '\0');
    for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<char>(i * 7 + 1);
    EXPECT_EQ(xxh64(bytes), want) << n << " bytes";
    for (const size_t step : {1, 5, 31, 32, 33, 77}) {  // the same in pieces
      Xxh64 hash;
      for (size_t at = 0; at < n; at += step) {
        hash.update(std::as_bytes(std::span(bytes).subspan(at, std::min(step, n - at))));
      }
      EXPECT_EQ(hash.digest(), want) << n << " bytes by " << step;
    }
  }
  EXPECT_EQ(hex64(0xab), "00000000000000ab");
}

TEST(OwnedRange, CoversInMultiplesOf16) {
  for (const int64_t size : {0, 1, 15, 16, 47, 48, 1000, 1007}) {
    for (const int ranks : {1, 2, 3, 7}) {
      int64_t end = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Range range = owned_range(size, rank, ranks);
        EXPECT_EQ(range.begin, end);
        EXPECT_EQ(range.begin % 16, 0);
        // Equal parts, except that the last one has the remainder modulo 16 * ranks.
        EXPECT_EQ(range.size() - (rank == ranks - 1 ? size % (16 * ranks) : 0),
                  size / (16 * ranks) * 16);
        end = range.end;
      }
      EXPECT_EQ(end, size);
    }
  }
}

// For every range of every shape, the boxes contain exactly its elements, in order.
TEST(BoxesOf, PartitionEveryRange) {
  for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{
           {1}, {9}, {7, 5}, {1, 6}, {6, 1}, {4, 1, 3}, {3, 4, 5}, {1, 1, 1}, {2, 3, 2, 2}}) {
    const int64_t numel = TensorEntry{"", shape, 0}.numel();
    for (int64_t begin = 0; begin <= numel; ++begin) {
      for (int64_t end = begin; end <= numel; ++end) {
        const std::vector<Box> boxes = boxes_of(shape, {begin, end});
        EXPECT_LE(boxes.size(), 2 * shape.size() - 1);
        int64_t next = begin;
        for (const Box& box : boxes) {
          for (int64_t i = 0; i < box.numel(); ++i, ++next) {
            int64_t left = i, stride = box.numel(), index = 0;
            for (size_t axis = 0; axis < shape.size(); ++axis) {
              stride /= box.count[axis];
              index = index * shape[axis] + box.start[axis] + left / stride;
              left %= stride;
              ASSERT_LE(box.start[axis] + box.count[axis], shape[axis]);
            }
            ASSERT_EQ(index, next) << shape_text(shape) << " [" << begin << ", " << end << ")";
          }
        }
        ASSERT_EQ(next, end);
      }
    }
  }
}

TEST(CheckLayout, RejectsWhatCannotBeSaved) {
  const auto message = [](FlatLayout layout) { return failure_of([&] { check_layout(layout); }); };
  EXPECT_EQ(message(example_layout()), "nothing was thrown");
  EXPECT_EQ(message({{}, 0}), "nothing was thrown");
  for (const char* name : {"", ".", "a/b", "%b"}) {
    EXPECT_NE(message({{{name, {1}, 0}}, 1}).find("cannot be the name"), std::string::npos) << name;
  }
  EXPECT_NE(message({{{"w", {1}, 0}, {"w", {1}, 1}}, 2}).find("twice"), std::string::npos);
  EXPECT_NE(message({{{"w", {}, 0}}, 2}).find("dimensions"), std::string::npos);
  EXPECT_NE(message({{{"w", {0}, 0}}, 2}).find("impossible shape (0)"), std::string::npos);
  EXPECT_NE(message({{{"w", {int64_t{1} << 32, int64_t{1} << 32}, 0}}, 2}).find("impossible"),
            std::string::npos);
  EXPECT_NE(message({{{"w", {3}, 0}}, 2}).find("leaves the buffer"), std::string::npos);
  EXPECT_NE(message({{{"w", {2}, INT64_MAX}}, 2}).find("leaves the buffer"), std::string::npos);
  EXPECT_NE(message({{{"v", {2}, 0}, {"w", {2}, 1}}, 9}).find("overlaps"), std::string::npos);
}

TEST(CheckRanges, RejectsGapsAndOverlaps) {
  const auto ok = [](std::vector<Range> ranges) {
    return failure_of([&] { check_ranges(ranges, 10); }) == "nothing was thrown";
  };
  EXPECT_TRUE(ok({{0, 10}}));
  EXPECT_TRUE(ok({{0, 0}, {0, 7}, {7, 7}, {7, 10}}));
  EXPECT_FALSE(ok({}));
  EXPECT_FALSE(ok({{0, 5}, {6, 10}}));
  EXPECT_FALSE(ok({{0, 5}, {4, 10}}));
  EXPECT_FALSE(ok({{0, 9}}));
  EXPECT_FALSE(ok({{0, 11}, {11, 10}}));
}

Metadata example_metadata() {
  Metadata metadata{
      "0123456789abcdef0123456789abcdef", example_state(7), kGroups, example_layout(), {}};
  for (int rank = 0; rank < 3; ++rank)
    metadata.ranges.push_back(owned_range(metadata.layout.size, rank, 3));
  return metadata;
}

TEST(Metadata, RoundTrip) {
  const Metadata want = example_metadata(), got = parse_metadata(format_metadata(want));
  EXPECT_EQ(format_metadata(got), format_metadata(want));
  EXPECT_EQ(got.id, want.id);
  EXPECT_EQ(got.state.sample, want.state.sample);
  EXPECT_EQ(got.layout.tensors[4].shape, want.layout.tensors[4].shape);
  EXPECT_EQ(got.ranges[2].begin, want.ranges[2].begin);
}

TEST(Metadata, RejectsOtherContent) {
  const std::string good = format_metadata(example_metadata());
  const auto with = [&](const std::string& from, const std::string& to) {
    const size_t at = good.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return good.substr(0, at) + to + good.substr(at + from.size());
  };
  for (const std::string& bad :
       {std::string(), std::string("[]"), std::string("nul"), good.substr(0, good.size() - 1),
        with("\"format_version\":1", "\"format_version\":2"), with("\"step\":7", "\"step\":7.5"),
        with("\"step\":7", "\"step\":18446744073709551615"), with("\"sample\":", "\"sample\":-"),
        with("\"shape\":[7,5]", "\"shape\":[7,-5]"), with("\"shape\":[7,5]", "\"shape\":[7,5e0]"),
        with("\"offset\":0", "\"offset\":900"), with("[[0,", "[[1,"), with("\"id\"", "\"ID\"")}) {
    EXPECT_THROW(parse_metadata(bad), Error) << bad;
  }
}

Manifest example_manifest() {
  return {"0123456789abcdef0123456789abcdef",
          7,
          2,
          {{"rank_0000.h5", {1, 2}}, {"rank_0001.h5", {3, 4}}, {"checkpoint.h5", {5, UINT64_MAX}}}};
}

TEST(Manifest, RoundTrip) {
  const Manifest want = example_manifest(), got = parse_manifest(format_manifest(want));
  EXPECT_EQ(format_manifest(got), format_manifest(want));
  EXPECT_EQ(got.files[2].name, "checkpoint.h5");
  EXPECT_EQ(got.files[2].sum.size, 5);
  EXPECT_EQ(got.files[2].sum.xxh64, UINT64_MAX);
  EXPECT_EQ(got.world_size, 2);
}

TEST(Manifest, NoByteMayChangeGoOrCome) {
  const std::string good = format_manifest(example_manifest());
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int bit : {0, 5, 7}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ 1 << bit);
      EXPECT_THROW(parse_manifest(bad), Error) << "byte " << i << " bit " << bit;
    }
    EXPECT_THROW(parse_manifest(good.substr(0, i)), Error) << i << " bytes";
  }
  EXPECT_THROW(parse_manifest(good + "\n"), Error);
}

// With a correct checksum, so that the content is what fails.
TEST(Manifest, RejectsOtherContent) {
  const auto rejects = [](const std::function<void(Manifest&)>& change) {
    Manifest manifest = example_manifest();
    change(manifest);
    EXPECT_THROW(parse_manifest(format_manifest(manifest)), Error) << format_manifest(manifest);
  };
  rejects([](Manifest& m) { m.files.pop_back(); });
  rejects([](Manifest& m) { m.files.push_back({"rank_0003.h5", {1, 1}}); });
  rejects([](Manifest& m) { m.files[1].name = "../rank_0001.h5"; });
  rejects([](Manifest& m) { m.world_size = 0; });
  rejects([](Manifest& m) { m.world_size = 3; });
  rejects([](Manifest& m) { m.id = "\", \"id"; });
}

}  // namespace
}  // namespace rodimus
