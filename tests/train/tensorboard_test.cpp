#include "train/tensorboard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <iterator>
#include <vector>

#include "base/error.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

// A decoder written only from the format descriptions: bit-by-bit CRC, generic protobuf fields.
uint32_t slow_crc32c(const std::string& bytes) {
  uint32_t crc = 0xffffffffu;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) {
      const bool low = (crc & 1u) != 0;
      crc >>= 1;
      if (low) crc ^= 0x82f63b78u;
    }
  }
  return crc ^ 0xffffffffu;
}

template <class T>
T read_as(const std::string& bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

void expect_masked_crc(const std::string& data, uint32_t masked) {
  const uint32_t rotated = masked - 0xa282ead8u;
  EXPECT_EQ((rotated >> 17) | (rotated << 15), slow_crc32c(data));
}

std::vector<std::string> records_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  std::vector<std::string> records;
  for (size_t at = 0; at < bytes.size();) {
    EXPECT_LE(at + 16, bytes.size());
    const auto length = read_as<uint64_t>(bytes, at);
    expect_masked_crc(bytes.substr(at, 8), read_as<uint32_t>(bytes, at + 8));
    records.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(records.back().size(), length);
    expect_masked_crc(records.back(), read_as<uint32_t>(bytes, at + 12 + length));
    at += 16 + length;
  }
  return records;
}

struct Field {
  uint64_t number, wire, integer;  // integer: of varints
  std::string bytes;               // of everything else
};

uint64_t take_varint(const std::string& bytes, size_t& at) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.at(at++));
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

std::vector<Field> fields_of(const std::string& bytes) {
  std::vector<Field> fields;
  for (size_t at = 0; at < bytes.size();) {
    const uint64_t key = take_varint(bytes, at);
    Field f{key >> 3, key & 7, 0, ""};
    if (f.wire == 0) {
      f.integer = take_varint(bytes, at);
    } else {
      const size_t size = f.wire == 1 ? 8 : f.wire == 5 ? 4 : take_varint(bytes, at);
      f.bytes = bytes.substr(at, size);
      at += size;
    }
    fields.push_back(f);
  }
  return fields;
}

class TensorBoard : public ::testing::Test {
 protected:
  void SetUp() override { fs::remove_all(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  const fs::path folder_ = fs::path(::testing::TempDir()) / "tensorboard_test";
};

TEST_F(TensorBoard, CrcHasTheKnownAnswers) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);            // the check value of CRC-32C
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(""), 0u);
}

TEST_F(TensorBoard, WritesWhatADecoderReads) {
  TensorBoardWriter writer(folder_ / "a" / "b", -1);
  const std::string long_tag(200, 't');
  const std::vector<TensorBoardWriter::Scalar> scalars = {{"train/loss", 2.5f},
                                                          {long_tag, -1e-30f}};
  writer.write(300, scalars);
  const auto records = records_of(writer.file());
  ASSERT_EQ(records.size(), 4u);

  const auto version = fields_of(records[0]);
  ASSERT_EQ(version.size(), 3u);
  EXPECT_EQ(version[2].number, 3u);
  EXPECT_EQ(version[2].bytes, "brain.Event:2");

  const auto event = fields_of(records[3]);
  ASSERT_EQ(event.size(), 3u);
  EXPECT_EQ(event[0].number, 1u);
  EXPECT_GT(read_as<double>(event[0].bytes, 0), 1.5e9);  // seconds since 1970
  EXPECT_EQ(event[1].number, 2u);
  EXPECT_EQ(event[1].integer, 300u);
  EXPECT_EQ(event[2].number, 5u);
  const auto values = fields_of(event[2].bytes);
  ASSERT_EQ(values.size(), scalars.size());
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(values[i].number, 1u);
    const auto value = fields_of(values[i].bytes);
    ASSERT_EQ(value.size(), 2u);
    EXPECT_EQ(value[0].bytes, scalars[i].tag);
    EXPECT_EQ(value[1].wire, 5u);
    EXPECT_EQ(read_as<float>(value[1].bytes, 0), scalars[i].value);
  }
}

// TensorBoard ignores the first START that it reads, so every file has two.
TEST_F(TensorBoard, EveryFilePurgesWhatEarlierOnesSayOfItsSteps) {
  for (const int64_t resume_step : {-1, 41, 0}) {
    TensorBoardWriter writer(folder_, resume_step);
    const auto records = records_of(writer.file());
    ASSERT_EQ(records.size(), 3u);
    for (const size_t i : {1u, 2u}) {
      const auto start = fields_of(records[i]);
      EXPECT_EQ(start[1].integer, static_cast<uint64_t>(resume_step + 1));
      EXPECT_EQ(start[2].number, 7u);
      const auto log = fields_of(start[2].bytes);
      EXPECT_EQ(log[0].number, 1u);
      EXPECT_EQ(log[0].integer, 1u);
    }
  }
}

TEST_F(TensorBoard, FilesSortInTheOrderOfTheRun) {
  std::string last;
  const auto expect_after = [&] {
    const std::string name = TensorBoardWriter(folder_, 4).file().filename();
    EXPECT_LT(last, name);
    EXPECT_EQ(name.rfind("events.out.tfevents.", 0), 0u);
    last = name;
  };
  // Within the same second; then after files from clocks that are ahead, and after foreign names.
  for (int i = 0; i < 3; ++i) expect_after();
  for (const char* name :
       {"events.out.tfevents.5000000000.elsewhere", "events.out.tfevents.9999999999.x",
        "events.out.tfevents.9223372036854775807.x", "events.out.tfevents.last"}) {
    std::ofstream(folder_ / name) << "";
    last = name;
    expect_after();
    expect_after();
  }
}

TEST_F(TensorBoard, AFileInTheWayIsAnError) {
  std::ofstream(folder_) << "not a folder";
  EXPECT_THROW(TensorBoardWriter(folder_, -1), Error);
}

}  // namespace
}  // namespace rodimus
