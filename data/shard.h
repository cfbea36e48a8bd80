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
  // path: the prefix NAME, NAME.idx or NAME.bin. llm.c files do not record documents: with
  // `document_delimiter` a document starts at each such token, without it the file is one document
  // (it is ignored for Megatron datasets). The constructor checks the whole structure; throws
  // Error.
  explicit Shard(const std::filesystem::path& path, std::optional<int32_t> document_delimiter = {});
  // The same without check_structure(), which must be called before any function that deals with
  // documents: opening then takes constant time (unless llm.c documents must be found).
  static Shard open_unchecked(const std::filesystem::path& path,
                              std::optional<int32_t> document_delimiter);
  void check_structure() const;

  // Path of the token file, for messages.
  const std::filesystem::path& path() const { return bin_.path(); }
  int64_t tokens() const { return tokens_; }
  int64_t documents() const;
  TokenType token_type() const { return type_; }
  const std::optional<ShardInfo>& info() const { return info_; }

  // Position of the first token of document d; d = documents() gives tokens(). Documents may be
  // empty.
  int64_t document_begin(int64_t d) const;
  // The document that contains token `position`: the last one that begins at or before it. O(log
  // n).
  int64_t document_at(int64_t position) const;

  // Copies tokens [position, position + count). Throws Error naming file, position and token if any
  // is not in [0, vocab_size).
  void read(int64_t position, int64_t count, int64_t vocab_size, int32_t* out) const;

  // The open files; llm.c shards have no idx.
  const MappedFile& bin() const { return bin_; }
  const MappedFile* idx() const { return idx_ ? &*idx_ : nullptr; }

  // The number of tokens that end within the first `bytes` bytes of the token file.
  int64_t token_at_byte(uint64_t bytes) const;
  // The largest token of [position, position + count). Throws Error on the first one outside the
  // vocabulary.
  int64_t require_tokens(int64_t position, int64_t count, int64_t vocab_size) const;
  // Throws Error if the vocabulary recorded in NAME.json is larger than the model's.
  void require_vocab(int64_t vocab_size) const;

  // Reads everything: compares checksums if there is a NAME.json, else checks every token against
  // `vocab_size` (0: not checked). Throws Error on the first damage.
  void verify(int64_t vocab_size) const;

 private:
  struct Unchecked {};
  Shard(const std::filesystem::path& path, std::optional<int32_t> document_delimiter, Unchecked);
  int64_t find_bad_token(int64_t position, int64_t count, int64_t vocab_size) const;  // -1 if none
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

// Throws Error unless the checksum computed for a file equals the one in NAME.json.
void require_digest(const MappedFile& file, uint64_t got, uint64_t expected);

// The shards at `path`: one shard (as above), or all shards of a folder, ordered by name. Throws
// Error when there is none, or when the folder mixes train and val.
std::vector<std::filesystem::path> find_shards(const std::filesystem::path& path);

}  // namespace rodimus
