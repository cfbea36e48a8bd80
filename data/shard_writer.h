// Writes NAME.bin, NAME.idx (Megatron-LM indexed dataset, one sequence per document) and NAME.json.
// Constant memory; the files get their names only when all three are on disk, so a reader never
// sees half a shard.
#pragma once

#include <filesystem>
#include <optional>
#include <span>

#include "base/atomic_file.h"
#include "data/shard_index.h"
#include "data/shard_info.h"

namespace rodimus {

// uint16 for vocabularies up to 65536, else int32.
TokenType token_type_for(int64_t vocab_size);

class ShardWriter {
 public:
  // `info` must have tokenizer_hash, vocab_size and eos_id; the rest is counted here. Throws Error
  // when the files cannot be created.
  ShardWriter(std::filesystem::path prefix, ShardInfo info);

  // `tokens`: at least one, each in [0, vocab_size); text_bytes and text_words: the size of their
  // text. If text_words (-1) or lossless is unknown for one document, it becomes unknown for the
  // shard.
  void add_document(std::span<const int32_t> tokens, int64_t text_bytes, int64_t text_words = -1,
                    std::optional<bool> lossless = {});

  // close() flushes everything to disk and throws Error if that fails; publish() then only renames,
  // and replaces a shard of that name. There must be at least one document.
  void close();
  void publish();
  const ShardInfo& info() const { return info_; }

 private:
  void write_index(const std::filesystem::path& sizes);

  std::filesystem::path prefix_;
  ShardInfo info_;
  TokenType type_;
  AtomicFile bin_, sizes_, idx_, json_;  // sizes_: int32 per document, the part of .idx that grows
};

}  // namespace rodimus
