// `rodimus tokenize` without its command line: texts -> (trained tokenizer) -> train and val
// shards. OUT/tokenizer.model, OUT/train.{bin,idx,json}, OUT/val.{bin,idx,json}. The output depends
// only on the texts and options, not on the number of threads.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "data/shard_info.h"
#include "data/text_source.h"
#include "data/tokenizer.h"
#include "data/validation_split.h"

namespace rodimus {

inline constexpr int kMaxTokenizeThreads = 4096;

struct TokenizeOptions {
  TextSourceConfig source;
  std::filesystem::path out;        // a folder; created when missing
  std::filesystem::path tokenizer;  // an existing model; empty: train one
  TokenizerTraining training;
  // Amount of text to train the tokenizer on, approximately.
  int64_t training_bytes = int64_t{16} << 20;
  // Fraction of the documents, chosen by (seed, document index), or the end of the last document if
  // that would leave train or val empty. 0: no val.
  double val_fraction = 0.01;
  uint64_t seed = 0;
  bool append_eos = true;  // after each document
  bool force = false;      // replace shards of an earlier run
  int threads = 1;
  bool progress = true;  // on stderr
};

struct TokenizeResult {
  ShardInfo train, val;  // val.documents == 0: none was written
  int64_t vocab_size = 0;
  std::string tokenizer_hash;
  uint64_t skipped_documents = 0, repaired_documents = 0;  // both because of invalid UTF-8
  Places invalid_utf8, bad_lines;
  std::optional<ValidationCut> cut;
  // The number of documents that do not decode to their text, and the first change in the first of
  // them.
  uint64_t changed_documents = 0;
  std::string change = {};
  double training_seconds = 0, encoding_seconds = 0;
};

// If it throws Error, nothing has appeared in OUT under its final name.
TokenizeResult tokenize(const TokenizeOptions& options);

}  // namespace rodimus
