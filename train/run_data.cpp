#include "train/run_data.h"

#include <algorithm>

#include "kernels/xxh64.h"

namespace rodimus {
namespace {

std::unique_ptr<Dataset> open_dataset(const std::vector<std::string>& paths, const Config& config) {
  if (paths.empty()) return nullptr;
  DatasetConfig dataset;
  dataset.seq_len = config.data.seq_len;
  dataset.vocab_size = config.model.vocab_size;
  dataset.verify = config.data.verify;
  dataset.paths.assign(paths.begin(), paths.end());
  if (config.data.document_delimiter >= 0) {
    dataset.document_delimiter = static_cast<int32_t>(config.data.document_delimiter);
  }
  return std::make_unique<Dataset>(dataset);
}

void require_same_tokenizer(const Dataset* data, const char* key, const RunData& run,
                            const Config& config) {
  if (!data || !run.tokenizer || data->tokenizer_hash().empty()) return;
  if (data->tokenizer_hash() == run.tokenizer->hash()) return;
  fail(key, ": the shards were written with tokenizer ", data->tokenizer_hash(),
       ", but data.tokenizer = \"", config.data.tokenizer, "\" is ", run.tokenizer->hash(),
       "; name the tokenizer.model that lies beside the shards, or tokenize again");
}

int64_t vocab_of_shards(const Config& config) {
  int64_t vocab = 0;
  for (const auto* paths : {&config.data.train, &config.data.val}) {
    for (const std::string& path : *paths) {
      for (const auto& shard : find_shards(path)) {
        const auto info = Shard(shard).info();
        if (info) vocab = std::max(vocab, info->vocab_size);
      }
    }
  }
  return vocab;
}

}  // namespace

std::vector<int32_t> bytes_per_token(const Tokenizer& tokenizer, int64_t vocab_size) {
  std::vector<int32_t> bytes(static_cast<size_t>(vocab_size), 0);
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    bytes.at(static_cast<size_t>(id)) =
        narrow<int32_t>(static_cast<int64_t>(tokenizer.bytes_of(id).size()));
  }
  return bytes;
}

std::string tokenizer_hash(const RunData& run) {
  if (run.tokenizer) return run.tokenizer->hash();
  for (const Dataset* data : {run.train.get(), run.val.get()}) {
    if (data && !data->tokenizer_hash().empty()) return data->tokenizer_hash();
  }
  return "";
}

void require_run_tokenizer(const RunData& run, const std::string& wanted) {
  const std::string found = tokenizer_hash(run);
  if (wanted.empty() || found.empty() || wanted == found) return;
  fail("the model was trained with tokenizer ", wanted, ", the data or --tokenizer is of ", found,
       "; name the tokenizer and shards of the run");
}

std::string data_fingerprint(const Dataset& data) {
  Xxh64 hash;
  const auto add = [&](const auto& value) { hash.update(std::as_bytes(std::span(&value, 1))); };
  for (const Shard& shard : data.shards()) {
    add(shard.tokens());
    add(shard.documents());
    if (shard.info()) {
      add(shard.info()->bin_xxh64);
      continue;
    }
    constexpr int64_t kSample = 4096;  // tokens at either end
    std::vector<int32_t> tokens(static_cast<size_t>(std::min(kSample, shard.tokens())));
    const auto count = static_cast<int64_t>(tokens.size());
    for (const int64_t begin : {int64_t{0}, shard.tokens() - count}) {
      shard.read(begin, count, INT32_MAX, tokens.data());
      hash.update(std::as_bytes(std::span(tokens)));
    }
  }
  return hex64(hash.digest());
}

RunData open_data(Config& config) {
  RunData run;
  if (!config.data.tokenizer.empty()) {
    run.tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(config.data.tokenizer));
  }
  const int64_t known = run.tokenizer ? run.tokenizer->vocab_size() : vocab_of_shards(config);
  if (config.model.vocab_size == 0) {
    if (known == 0)
      fail("model.vocab_size is not set and neither data.tokenizer nor the shards tell it: set it");
    config.model.vocab_size = known;
  }
  if (config.model.vocab_size < known) {
    fail("model.vocab_size = ", config.model.vocab_size, " is less than the ", known,
         " tokens of the tokenizer: set it to ", known, " or more");
  }
  if (run.tokenizer) run.token_bytes = bytes_per_token(*run.tokenizer, config.model.vocab_size);
  config.model.validate();
  run.train = open_dataset(config.data.train, config);
  run.val = open_dataset(config.data.val, config);
  require_same_tokenizer(run.train.get(), "data.train", run, config);
  require_same_tokenizer(run.val.get(), "data.val", run, config);
  return run;
}

BatchTensors to_tensors(Exec& exec, const Batch& batch) {
  const Shape shape{batch.B, batch.T};
  return {to_device(exec, batch.inputs, shape), to_device(exec, batch.targets, shape),
          batch.starts.empty() ? Tensor{} : to_device(exec, batch.starts, shape)};
}

}  // namespace rodimus
