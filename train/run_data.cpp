#include "train/run_data.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/checksum.h"

namespace rodimus {
namespace {

std::unique_ptr<Dataset> dataset_of(std::vector<Shard> shards, int64_t seq_len, int64_t vocab_size,
                                    bool needs_window) {
  if (shards.empty()) return nullptr;
  return std::make_unique<Dataset>(std::move(shards), seq_len, vocab_size, needs_window);
}

void require_same_tokenizer(const Dataset* data, const char* key, const Tokenizer* tokenizer,
                            const std::string& file) {
  if (!data || !tokenizer || data->tokenizer_hash().empty()) return;
  if (data->tokenizer_hash() == tokenizer->hash()) return;
  fail(key, ": the shards were written with tokenizer ", data->tokenizer_hash(),
       ", but data.tokenizer = \"", file, "\" is ", tokenizer->hash(),
       "; name the tokenizer.model next to the shards, or tokenize again");
}

// The part that does not read the contents of shards.
RunData put_together(DataSources sources, int64_t vocab_size, int64_t seq_len) {
  if (const int64_t known = sources.vocab_size(); vocab_size < known) {
    fail("model.vocab_size = ", vocab_size, " is less than the ", known,
         " tokens of the tokenizer: set it to ", known, " or more");
  }
  RunData run;
  run.tokenizer = std::move(sources.tokenizer);
  if (run.tokenizer) run.token_bytes = bytes_per_token(*run.tokenizer, vocab_size);
  run.train = dataset_of(std::move(sources.train), seq_len, vocab_size, /*needs_window=*/true);
  run.val = dataset_of(std::move(sources.val), seq_len, vocab_size, /*needs_window=*/false);
  const Tokenizer* const tokenizer = run.tokenizer.get();
  require_same_tokenizer(run.train.get(), "data.train", tokenizer, sources.tokenizer_file);
  require_same_tokenizer(run.val.get(), "data.val", tokenizer, sources.tokenizer_file);
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
    constexpr int64_t kSample = 4096;  // tokens at each end
    std::vector<int32_t> tokens(static_cast<size_t>(std::min(kSample, shard.tokens())));
    const auto count = static_cast<int64_t>(tokens.size());
    for (const int64_t begin : {int64_t{0}, shard.tokens() - count}) {
      shard.read(begin, count, INT32_MAX, tokens.data());
      hash.update(std::as_bytes(std::span(tokens)));
    }
  }
  return hex64(hash.digest());
}

int64_t DataSources::vocab_size() const {
  if (tokenizer) return tokenizer->vocab_size();
  int64_t vocab = 0;
  for (const auto* shards : {&train, &val}) {
    for (const Shard& shard : *shards)
      if (shard.info()) vocab = std::max(vocab, shard.info()->vocab_size);
  }
  return vocab;
}

DataSources open_sources(const DataFiles& files) {
  DataSources sources;
  sources.tokenizer_file = files.tokenizer;
  if (!files.tokenizer.empty())
    sources.tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(files.tokenizer));
  std::optional<int32_t> delimiter;
  if (files.document_delimiter >= 0) delimiter = static_cast<int32_t>(files.document_delimiter);
  const auto open = [&](const std::vector<std::string>& paths) -> std::vector<Shard> {
    if (paths.empty()) return {};
    return open_shards({paths.begin(), paths.end()}, delimiter);
  };
  sources.train = open(files.train);
  sources.val = open(files.val);
  return sources;
}

RunData open_data(DataSources sources, int64_t vocab_size, int64_t seq_len,
                  const VerifyOptions& verify, Communicator& communicator) {
  RunData run;
  together(communicator, [&] { run = put_together(std::move(sources), vocab_size, seq_len); });
  std::vector<const Shard*> shards;
  for (const Dataset* data : {run.train.get(), run.val.get()}) {
    if (!data) continue;
    for (const Shard& shard : data->shards()) shards.push_back(&shard);
  }
  verify_shards(shards, vocab_size, verify, communicator);
  // data_fingerprint() reads a little of every shard without NAME.json.
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
