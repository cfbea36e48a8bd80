// The data of a run: shards and tokenizer, with checks that they match each other and the model.
#pragma once

#include <memory>
#include <vector>

#include "autograd/tape.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "train/inference/text_counts.h"
#include "train/verify_data.h"

namespace rodimus {

struct RunData {
  std::unique_ptr<Dataset> train, val;   // null when there is none
  std::unique_ptr<Tokenizer> tokenizer;  // may be null
  std::vector<int32_t> token_bytes;      // bytes of text per token, empty without a tokenizer
  TextCounts val_text;                   // counts of the text of val
  std::string fingerprint;               // data_fingerprint() of train, empty without it
};

// What to open: shards, prefixes or folders, and a SentencePiece model ("" = none), as in
// DataConfig.
struct DataFiles {
  std::vector<std::string> train, val;
  std::string tokenizer;
  int64_t document_delimiter = -1;  // for llm.c shards
};

// The opened files; nothing of their contents has been read.
struct DataSources {
  std::vector<Shard> train, val;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string tokenizer_file;

  // The tokenizer's, or the one the shards were written for; 0: unknown.
  int64_t vocab_size() const;
};
DataSources open_sources(const DataFiles& files);

// Puts the sources together and checks them. Collective: the ranks share the reading of the shards
// (verify_data.h). Throws SharedError for shards made with another tokenizer, a vocabulary larger
// than the model's `vocab_size`, a window of `seq_len` tokens longer than the training data, and
// whatever Dataset and verify_shards() find.
RunData open_data(DataSources sources, int64_t vocab_size, int64_t seq_len,
                  const VerifyOptions& verify, Communicator& communicator);

// Hash of the tokenizer, or the one recorded in the shards; "" if unknown.
std::string tokenizer_hash(const RunData& run);

// Throws Error when both hashes are known and differ; `wanted` is that of the model's tokenizer.
void require_run_tokenizer(const RunData& run, const std::string& wanted);

// Identifies the training data and its order: XXH64 over sizes, documents and checksums (without
// NAME.json: some tokens) of all shards in order, as 16 hexadecimal digits.
std::string data_fingerprint(const Dataset& data);

// Bytes of text per token; 0 for control tokens and for ids that the tokenizer does not have.
std::vector<int32_t> bytes_per_token(const Tokenizer& tokenizer, int64_t vocab_size);

// inputs, targets and starts (undefined when empty) of a batch as (B,T) int32 tensors on the
// device.
struct BatchTensors {
  Tensor inputs, targets, starts;
};
BatchTensors to_tensors(Exec& exec, const Batch& batch);

}  // namespace rodimus
