#include "data/xxh64.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>

namespace rodimus {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

constexpr uint64_t kPrime1 = 0x9e3779b185ebca87, kPrime2 = 0xc2b2ae3d27d4eb4f,
                   kPrime3 = 0x165667b19e3779f9, kPrime4 = 0x85ebca77c2b2ae63,
                   kPrime5 = 0x27d4eb2f165667c5;

template <class T>
uint64_t load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

uint64_t round(uint64_t lane, uint64_t input) {
  return std::rotl(lane + input * kPrime2, 31) * kPrime1;
}

}  // namespace

void Xxh64::update(std::span<const std::byte> bytes) {
  // A local copy lets the four lanes stay in registers.
  std::array<uint64_t, 4> lanes = lanes_;
  const auto absorb = [&lanes](const std::byte* p) {
    for (size_t i = 0; i < 4; ++i) lanes[i] = round(lanes[i], load<uint64_t>(p + 8 * i));
  };
  const size_t waiting = total_ % kStripe;
  total_ += bytes.size();
  if (waiting > 0) {
    const size_t taken = std::min(kStripe - waiting, bytes.size());
    std::copy_n(bytes.begin(), taken, tail_.begin() + static_cast<ptrdiff_t>(waiting));
    bytes = bytes.subspan(taken);
    if (waiting + taken < kStripe) return;
    absorb(tail_.data());
  }
  while (bytes.size() >= kStripe) {
    absorb(bytes.data());
    bytes = bytes.subspan(kStripe);
  }
  lanes_ = lanes;
  std::copy(bytes.begin(), bytes.end(), tail_.begin());
}

uint64_t Xxh64::digest() const {
  uint64_t hash = kPrime5;
  if (total_ >= kStripe) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) +
           std::rotl(lanes_[3], 18);
    for (const uint64_t lane : lanes_) hash = (hash ^ round(0, lane)) * kPrime1 + kPrime4;
  }
  hash += total_;
  const std::byte* p = tail_.data();
  size_t left = total_ % kStripe;
  for (; left >= 8; left -= 8, p += 8) {
    hash = std::rotl(hash ^ round(0, load<uint64_t>(p)), 27) * kPrime1 + kPrime4;
  }
  for (; left >= 4; left -= 4, p += 4) {
    hash = std::rotl(hash ^ (load<uint32_t>(p) * kPrime1), 23) * kPrime2 + kPrime3;
  }
  for (; left > 0; --left, ++p) {
    hash = std::rotl(hash ^ (load<uint8_t>(p) * kPrime5), 11) * kPrime1;
  }
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

uint64_t xxh64(std::span<const std::byte> bytes) {
  Xxh64 hash;
  hash.update(bytes);
  return hash.digest();
}

uint64_t xxh64(std::string_view text) { return xxh64(std::as_bytes(std::span(text))); }

std::string hex64(uint64_t value) { return fmt::format("{:016x}", value); }

}  // namespace rodimus
