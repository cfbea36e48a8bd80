#include "train/run_data.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/checksum.h"

namespace rodimus {
namespace {

std::vector<Shard> open_named(const std::vector<std::string>& paths, const Config& config) {
  if (paths.empty()) return {};
  std::optional<int32_t> delimiter;
  if (config.data.document_delimiter >= 0)
    delimiter = static_cast<int32_t>(config.data.document_delimiter);
  return open_shards({paths.begin(), paths.end()}, delimiter);
}

std::unique_ptr<Dataset> dataset_of(std::vector<Shard> shards, const Config& config,
                                    bool needs_window) {
  if (shards.empty()) return nullptr;
  return std::make_unique<Dataset>(std::move(shards), config.data.seq_len, config.model.vocab_size,
                                   needs_window);
}

void require_same_tokenizer(const Dataset* data, const char* key, const RunData& run,
                            const Config& config) {
  if (!data || !run.tokenizer || data->tokenizer_hash().empty()) return;
  if (data->tokenizer_hash() == run.tokenizer->hash()) return;
  fail(key, ": the shards were written with tokenizer ", data->tokenizer_hash(),
       ", but data.tokenizer = \"", config.data.tokenizer, "\" is ", run.tokenizer->hash(),
       "; name the tokenizer.model that lies beside the shards, or tokenize again");
}

int64_t vocab_of(const std::vector<Shard>& train, const std::vector<Shard>& val) {
  int64_t vocab = 0;
  for (const auto* shards : {&train, &val}) {
    for (const Shard& shard : *shards)
      if (shard.info()) vocab = std::max(vocab, shard.info()->vocab_size);
  }
  return vocab;
}

// What needs no look at the contents of shards.
RunData open_headers(Config& config) {
  RunData run;
  if (!config.data.tokenizer.empty()) {
    run.tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(config.data.tokenizer));
  }
  std::vector<Shard> train = open_named(config.data.train, config);
  std::vector<Shard> val = open_named(config.data.val, config);
  const int64_t known = run.tokenizer ? run.tokenizer->vocab_size() : vocab_of(train, val);
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
  run.train = dataset_of(std::move(train), config, /*needs_window=*/true);
  run.val = dataset_of(std::move(val), config, /*needs_window=*/false);
  require_same_tokenizer(run.train.get(), "data.train", run, config);
  require_same_tokenizer(run.val.get(), "data.val", run, config);
  return run;
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

RunData open_data(Config& config, VerifyOptions verify, Communicator& communicator) {
  RunData run;
  together(communicator, [&] { run = open_headers(config); });
  std::vector<const Shard*> shards;
  for (const Dataset* data : {run.train.get(), run.val.get()}) {
    if (!data) continue;
    for (const Shard& shard : data->shards()) shards.push_back(&shard);
  }
  verify.read = config.data.verify;
  verify_shards(shards, config.model.vocab_size, verify, communicator);
  // It reads a little of every shard without NAME.json.
  if (run.train) {
    together(communicator, [&] {
      if (communicator.rank() == 0) run.fingerprint = data_fingerprint(*run.train);
    });
    run.fingerprint = broadcast_text(communicator, std::move(run.fingerprint), 0);
  }
  if (run.val) run.val_text = text_counts(*run.val, run.tokenizer.get());
  return run;
}

BatchTensors to_tensors(Exec& exec, const Batch& batch) {
  const Shape shape{batch.B, batch.T};
  return {to_device(exec, batch.inputs, shape), to_device(exec, batch.targets, shape),
          batch.starts.empty() ? Tensor{} : to_device(exec, batch.starts, shape)};
}

}  // namespace rodimus
