// NAME.json, next to NAME.bin and NAME.idx: what the Megatron format has no room for, and the
// checksums that reveal a flipped bit. It is optional: shards from elsewhere do not have it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace rodimus {

struct ShardInfo {
  std::string tokenizer_hash =
      {};                  // XXH64 of the tokenizer model, 16 hexadecimal digits; may be empty
  int64_t vocab_size = 0;  // every token is below it
  int32_t eos_id = -1;     // the token that ends each document; -1: none
  int64_t documents = 0;
  int64_t tokens = 0;
  // Size of the original text as it was read (without a BOM, with U+FFFD for repaired bytes), not
  // after normalisation by a tokenizer. Converts nats per token to bits per byte.
  int64_t text_bytes = 0;
  int64_t text_words = -1;  // words of the text, see count_words(); -1: unknown (older files)
  // Whether every document decodes to its text; nullopt: unknown (older files).
  std::optional<bool> lossless = {};
  uint64_t bin_xxh64 = 0, idx_xxh64 = 0;

  bool operator==(const ShardInfo&) const = default;
};

// The content of NAME.json, which includes a checksum of itself.
std::string to_json(const ShardInfo& info);

// nullopt when `file` does not exist. Throws Error when it is damaged.
std::optional<ShardInfo> read_shard_info(const std::filesystem::path& file);

}  // namespace rodimus
