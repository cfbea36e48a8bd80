// Several shards as one row of training windows. Window w holds T + 1 tokens (inputs and targets
// overlap by one); windows follow each other with stride T and do not cross shards, whose last
// (tokens - 1) % T + 1 tokens therefore only serve evaluation by document.
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
  int64_t vocab_size = 0;                          // the model's: every token must be below it
  std::optional<int32_t> document_delimiter = {};  // llm.c shards only, see Shard
  bool verify = true;  // checksums and tokens too: Shard::verify(); else the structure alone
};

// The shards that `paths` stand for, opened unchecked (see Shard). Throws Error.
std::vector<Shard> open_shards(const std::vector<std::filesystem::path>& paths,
                               std::optional<int32_t> document_delimiter);

class Dataset {
 public:
  // Throws Error when a shard is missing or damaged, when shards were written with different
  // tokenizers, or when no shard is long enough for one window.
  explicit Dataset(const DatasetConfig& config);
  // The same with shards that are open already, in their order. Those that were opened unchecked
  // must be checked before any window or document is read.
  Dataset(std::vector<Shard> shards, int64_t seq_len, int64_t vocab_size);

  const std::vector<Shard>& shards() const { return shards_; }
  uint64_t windows() const { return first_window_.back(); }
  int64_t seq_len() const { return seq_len_; }
  int64_t tokens() const;  // in all shards, tails included
  // XXH64 of the tokenizer model all shards were written with; empty when no shard tells.
  const std::string& tokenizer_hash() const { return tokenizer_hash_; }

  // tokens (T + 1) <- window w. starts (T) or null: starts[t] is the place in the window where the
  // document of token t begins, 0 when it began earlier; a model that resets at documents looks at
  // [starts[t], t] only. Thread-safe. Throws Error on a token outside the vocabulary.
  void read(uint64_t w, int32_t* tokens, int32_t* starts) const;

  int64_t documents() const { return first_document_.back(); }
  std::vector<int32_t> document(int64_t d) const;

 private:
  std::vector<Shard> shards_;
  std::vector<uint64_t> first_window_;   // per shard, and the total
  std::vector<int64_t> first_document_;  // likewise
  std::string tokenizer_hash_;
  int64_t seq_len_, vocab_size_;
};

}  // namespace rodimus
