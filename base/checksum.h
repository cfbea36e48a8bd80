// XXH64 with seed 0: the checksum of shards and checkpoints, and the identity of a tokenizer. It
// runs at memory speed, and anyone can check a file with `xxhsum -H1`. Computed by libxxhash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct XXH64_state_s;

namespace rodimus {

// Streaming form: update() any number of times, digest() at any point.
class Xxh64 {
 public:
  Xxh64();
  void update(std::span<const std::byte> bytes);
  uint64_t digest() const;

 private:
  struct Free {
    void operator()(XXH64_state_s* state) const;
  };
  std::unique_ptr<XXH64_state_s, Free> state_;
};

uint64_t xxh64(std::span<const std::byte> bytes);
uint64_t xxh64(std::string_view text);

// 16 lower-case hexadecimal digits, as xxhsum prints.
std::string hex64(uint64_t value);

}  // namespace rodimus
