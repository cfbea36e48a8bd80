// Several shards as one sequence of training windows. Window w holds T + 1 tokens (inputs and
// targets overlap by one); windows follow each other with stride T and do not cross shards. The
// remainder of a shard, (tokens - 1) % T + 1 tokens, is not used for training; evaluation reads it
// as a shorter window, a "piece".
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/shard.h"

namespace rodimus {

struct DatasetConfig {
  std::vector<std::filesystem::path> paths;        // shards or folders of shards, see find_shards()
  int64_t seq_len = 0;                             // T >= 1
  int64_t vocab_size = 0;                          // of the model; every token must be below it
  std::optional<int32_t> document_delimiter = {};  // llm.c shards only, see Shard
  bool verify = true;        // checksums and tokens too: Shard::verify(); false: only the structure
  bool needs_window = true;  // false: evaluation, which reads pieces
};

// The shards at `paths`, opened unchecked (see Shard). Throws Error.
std::vector<Shard> open_shards(const std::vector<std::filesystem::path>& paths,
                               std::optional<int32_t> document_delimiter);

class Dataset {
 public:
  // Throws Error when a shard is missing or damaged, when shards were written with different
  // tokenizers, or with needs_window when no shard is long enough for one window.
  explicit Dataset(const DatasetConfig& config);
  // The same with shards that are already open, in the given order. Shards opened unchecked must be
  // checked before any window or document is read.
  Dataset(std::vector<Shard> shards, int64_t seq_len, int64_t vocab_size, bool needs_window);

  const std::vector<Shard>& shards() const { return shards_; }
  uint64_t windows() const { return first_window_.back(); }
  int64_t seq_len() const { return seq_len_; }
  int64_t tokens() const;  // in all shards, remainders included
  // XXH64 of the tokenizer model that all shards were written with; empty when no shard records it.
  const std::string& tokenizer_hash() const { return tokenizer_hash_; }

  // tokens (T + 1) <- window w. starts (T) or null: starts[t] is the position in the window where
  // the document of token t begins, 0 if it began earlier; a model that resets at documents sees
  // only [starts[t], t]. Thread-safe. Throws Error on a token outside the vocabulary.
  void read(uint64_t w, int32_t* tokens, int32_t* starts) const;

  // The windows of each shard and then its remainder, shard by shard: together they predict every
  // token once, except the first of each shard.
  struct Piece {
    size_t shard;
    int64_t begin;        // position of its first token in the shard
    int64_t predictions;  // 1 .. T
  };
  int64_t pieces() const { return first_piece_.back(); }
  Piece piece(int64_t i) const;
  // Likewise: tokens (predictions + 1), starts (predictions) or null.
  void read(const Piece& piece, int32_t* tokens, int32_t* starts) const;
  int64_t predictable() const;  // predictions of all pieces together

  int64_t documents() const { return first_document_.back(); }
  int64_t document_size(int64_t d) const;
  std::vector<int32_t> document(int64_t d, int64_t most = INT64_MAX) const;  // its first `most`

 private:
  std::vector<Shard> shards_;
  std::vector<uint64_t> first_window_;   // per shard, and the total
  std::vector<int64_t> first_piece_;     // likewise
  std::vector<int64_t> first_document_;  // likewise
  std::string tokenizer_hash_;
  int64_t seq_len_, vocab_size_;
};

}  // namespace rodimus
