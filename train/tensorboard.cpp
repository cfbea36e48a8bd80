#include "train/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

#include "kernels/check.h"

namespace rodimus {
namespace {

static_assert(std::endian::native == std::endian::little,
              "protobuf and TFRecord are little-endian");

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    // 0x82f63b78: the Castagnoli polynomial, bits reversed.
    for (int bit = 0; bit < 8; ++bit) c = c & 1 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
    table[i] = c;
  }
  return table;
}();

template <class T>
std::string bytes_of(T value) {
  const auto bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
  return {bytes.begin(), bytes.end()};
}

// A checksum of data that holds checksums is weak, hence the rotation (TFRecord's own rule).
std::string masked_crc(std::string_view bytes) {
  return bytes_of(std::rotr(crc32c(bytes), 15) + 0xa282ead8u);
}

// Protobuf: each field is its number and wire type, then the value.
enum Wire : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7f) | 0x80);
  return out + static_cast<char>(value);
}
std::string field(uint32_t number, Wire wire, const std::string& value) {
  return varint(number << 3 | wire) + (wire == kBytes ? varint(value.size()) : "") + value;
}

// Event: wall_time = 1, step = 2, then one of file_version = 3, summary = 5, session_log = 7.
std::string event(int64_t step, const std::string& what) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return field(1, kFixed64, bytes_of(std::chrono::duration<double>(now).count())) +
         field(2, kVarint, varint(static_cast<uint64_t>(step))) + what;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = kCrcTable[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder, int64_t resume_step) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  // TensorBoard reads the files of a folder in the order of their names: seconds, then a number
  // for runs that start within one.
  const int64_t seconds = std::chrono::duration_cast<std::chrono::seconds>(
                              std::chrono::system_clock::now().time_since_epoch())
                              .count();
  for (int i = 0; file_.empty() || std::filesystem::exists(file_); ++i)
    file_ = folder / fmt::format("events.out.tfevents.{:010}.{:03}.{}", seconds, i, host_name());
  out_.open(file_, std::ios::binary);
  record(event(0, field(3, kBytes, "brain.Event:2")));
  // SessionLog: status = 1 with START = 1. The reader drops events at and after this step.
  if (resume_step >= 0)
    record(event(resume_step + 1, field(7, kBytes, field(1, kVarint, varint(1)))));
  if (!out_) fail("cannot write ", file_.native(), "; is the folder writable, the disk full?");
}

void TensorBoardWriter::record(const std::string& data) {
  const std::string length = bytes_of(static_cast<uint64_t>(data.size()));
  out_ << length << masked_crc(length) << data << masked_crc(data) << std::flush;
}

void TensorBoardWriter::write(int64_t step, std::span<const Scalar> scalars) {
  if (!out_) return;
  std::string summary;  // Summary: repeated value = 1 of {tag = 1, simple_value = 2}
  for (const Scalar& scalar : scalars) {
    summary +=
        field(1, kBytes, field(1, kBytes, scalar.tag) + field(2, kFixed32, bytes_of(scalar.value)));
  }
  record(event(step, field(5, kBytes, summary)));
  if (!out_) {
    fmt::print(stderr, "rodimus: warning: cannot write {}; no more TensorBoard events\n",
               file_.native());
  }
}

}  // namespace rodimus
