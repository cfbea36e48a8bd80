#include "train/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>

#include "base/error.h"

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

// The checksum of data that contains checksums is weak, hence the rotation (which TFRecord
// prescribes).
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

constexpr std::string_view kPrefix = "events.out.tfevents.";

// The event file in `folder` that TensorBoard reads last; "" if there is none.
std::string last_name(const std::filesystem::path& folder) {
  std::string last;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (name.find("tfevents") != std::string::npos) last = std::max(last, name);
  }
  return last;
}

// TensorBoard reads the files of a folder in the order of their names, which start with the time in
// seconds. A run may move to a machine whose clock is behind: then the name is one second after
// `last`.
std::string name_after(const std::string& last) {
  const auto name_at = [](int64_t seconds) {
    return fmt::format("{}{:010}.{}", kPrefix, seconds, host_name());
  };
  const std::string now = name_at(std::chrono::duration_cast<std::chrono::seconds>(
                                      std::chrono::system_clock::now().time_since_epoch())
                                      .count());
  if (now > last) return now;
  int64_t seconds = 0;
  if (last.starts_with(kPrefix))
    std::from_chars(last.data() + kPrefix.size(), last.data() + last.size(), seconds);
  const std::string next = seconds < INT64_MAX ? name_at(seconds + 1) : "";
  return next > last ? next : last + ".next";  // `last` was not written by us
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
  file_ = folder / name_after(last_name(folder));
  out_.open(file_, std::ios::binary);
  record(event(0, field(3, kBytes, "brain.Event:2")));
  // SessionLog: status = 1 with START = 1. On a START, TensorBoard drops what it has of this step
  // and later ones, except that it takes the very first START for the beginning of the run and
  // drops nothing. Writing two works whatever earlier files contain, even those of a run that began
  // again without a checkpoint.
  const std::string start = event(resume_step + 1, field(7, kBytes, field(1, kVarint, varint(1))));
  record(start);
  record(start);
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
