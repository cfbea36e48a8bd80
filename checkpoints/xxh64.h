// XXH64 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md), seed 0: the checksum of whole checkpoint
// files, so `xxhsum -H1 step_00001000/*` recomputes what manifest.json says. Every step is a
// bijection of the 8 bytes it takes in, so a change inside one such word is always noticed, any
// other change with probability 1 - 2^-64.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace rodimus {

class Xxh64 {
 public:
  void update(std::span<const std::byte> bytes);
  uint64_t digest() const;

 private:
  void stripe(const std::byte* bytes);

  std::array<uint64_t, 4> lanes_ = {0x60EA27EEADC0B5D6, 0xC2B2AE3D27D4EB4F, 0, 0x61C8864E7A143579};
  std::array<std::byte, 32> rest_{};
  size_t rest_size_ = 0;
  uint64_t total_ = 0;
};

uint64_t xxh64(std::string_view text);

// 16 lower-case hexadecimal digits.
std::string hex64(uint64_t value);

}  // namespace rodimus
