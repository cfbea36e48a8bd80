// XXH64, the checksum of shards and the identity of a tokenizer: 64 bits at memory speed, and
// anyone can check a file with `xxhsum -H1`. Specification: github.com/Cyan4973/xxHash,
// doc/xxhash_spec.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace rodimus {

// Streaming form: update() any number of times, digest() at any point. Seed 0.
class Xxh64 {
 public:
  void update(std::span<const std::byte> bytes);
  uint64_t digest() const;

 private:
  static constexpr size_t kStripe = 32;  // four lanes of eight bytes
  std::array<uint64_t, 4> lanes_ = {0x60ea27eeadc0b5d6, 0xc2b2ae3d27d4eb4f, 0, 0x61c8864e7a143579};
  std::array<std::byte, kStripe> tail_{};
  uint64_t total_ = 0;  // bytes so far; total_ % kStripe of them wait in tail_
};

uint64_t xxh64(std::span<const std::byte> bytes);
uint64_t xxh64(std::string_view text);

// 16 lower-case hexadecimal digits, as xxhsum prints.
std::string hex64(uint64_t value);

}  // namespace rodimus
