// The data of a run: shards, tokenizer, and the checks that they belong together and fit the model.
#pragma once

#include <memory>
#include <vector>

#include "autograd/tape.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "train/config/config.h"
#include "train/inference/text_counts.h"
#include "train/verify_data.h"

namespace rodimus {

struct RunData {
  std::unique_ptr<Dataset> train, val;   // null when the configuration names none
  std::unique_ptr<Tokenizer> tokenizer;  // null without data.tokenizer
  std::vector<int32_t> token_bytes;      // bytes of text per token, empty without a tokenizer
  TextCounts val_text;                   // of the text of val
  std::string fingerprint;               // data_fingerprint() of train, empty without it
};

// Opens what config.data names. Sets config.model.vocab_size from tokenizer or shards where it is
// 0. Collective: the ranks share what reads the shards (verify_data.h; config.data.verify decides
// VerifyOptions::read). Throws SharedError: shards made with another tokenizer, a vocabulary larger
// than the model's, windows longer than the training data, and what Dataset and verify_shards()
// find.
RunData open_data(Config& config, VerifyOptions verify, Communicator& communicator);

// Hash of the tokenizer, or what the shards say of it; "" when nobody knows.
std::string tokenizer_hash(const RunData& run);

// Throws Error when both hashes are known and differ: `wanted` is what the model was trained with.
void require_run_tokenizer(const RunData& run, const std::string& wanted);

// Identifies the training data and its order: XXH64 over sizes, documents and checksums (without
// NAME.json: some tokens) of all shards in their order, 16 hexadecimal digits.
std::string data_fingerprint(const Dataset& data);

// Bytes of text that each token stands for, 0 for control tokens and for ids above the tokenizer's.
std::vector<int32_t> bytes_per_token(const Tokenizer& tokenizer, int64_t vocab_size);

// inputs, targets and starts (undefined when empty) of a batch as (B,T) int32 tensors on the
// device.
struct BatchTensors {
  Tensor inputs, targets, starts;
};
BatchTensors to_tensors(Exec& exec, const Batch& batch);

}  // namespace rodimus
