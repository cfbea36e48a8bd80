// A shard: tokens in documents, memory-mapped. Reads Megatron-LM indexed datasets (NAME.bin +
// NAME.idx, ours have NAME.json too) and llm.c shards (one .bin). Positions count tokens from the
// start of the shard.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/mapped_file.h"
#include "data/shard_index.h"
#include "data/shard_info.h"

namespace rodimus {

class Shard {
 public:
  // path: the prefix NAME, NAME.idx or NAME.bin. llm.c files know no documents: with
  // `document_delimiter` a document starts at each such token, without it the file is one document
  // (it is ignored for Megatron datasets). All structure is checked here; throws Error.
  explicit Shard(const std::filesystem::path& path, std::optional<int32_t> document_delimiter = {});

  const std::filesystem::path& path() const { return bin_.path(); }  // of the tokens, for messages
  int64_t tokens() const { return tokens_; }
  int64_t documents() const;
  TokenType token_type() const { return type_; }
  const std::optional<ShardInfo>& info() const { return info_; }

  // First token of document d; d = documents() gives tokens(). Documents may be empty.
  int64_t document_begin(int64_t d) const;
  // The document that holds token `position`: the last one that begins at or before it. O(log n).
  int64_t document_at(int64_t position) const;

  // Copies tokens [position, position + count). Throws Error naming file, position and token when
  // one is not in [0, vocab_size).
  void read(int64_t position, int64_t count, int64_t vocab_size, int32_t* out) const;

  // Reads everything: checksums when a NAME.json is there, else every token against `vocab_size`
  // (0: not checked). Throws Error on the first damage.
  void verify(int64_t vocab_size) const;

 private:
  int64_t find_bad_token(int64_t position, int64_t count, int64_t vocab_size) const;  // -1: none
  [[noreturn]] void fail_bad_token(int64_t position, int64_t vocab_size) const;

  MappedFile bin_;
  std::optional<MappedFile> idx_;
  std::optional<MegatronIndex> index_;
  std::optional<ShardInfo> info_;
  std::vector<int64_t> begins_;  // llm.c only: documents + 1 entries
  const std::byte* data_ = nullptr;
  int64_t tokens_ = 0;
  TokenType type_ = TokenType::u16;
};

// What `path` stands for: a shard (as above), or all shards of a folder in the order of their
// names. Throws Error when there is none, or when the folder mixes train and val.
std::vector<std::filesystem::path> find_shards(const std::filesystem::path& path);

}  // namespace rodimus
