#include "train/config/config_warnings.h"

#include <filesystem>
#include <map>

#include "base/error.h"
#include "layers/blocks.h"
#include "train/schedule.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

fs::path real_path(const fs::path& path) {
  std::error_code error;
  const fs::path result = fs::canonical(path, error);
  return error ? path : result;
}

// "data.train and data.val ..." when a shard is in both, else "".
std::string shared_shards(const Dataset& train, const Dataset& val) {
  std::map<fs::path, const Shard*> by_path;
  std::map<uint64_t, const Shard*> by_content;
  for (const Shard& shard : train.shards()) {
    by_path.emplace(real_path(shard.path()), &shard);
    if (shard.info()) by_content.emplace(shard.info()->bin_xxh64, &shard);
  }
  int64_t count = 0;
  std::string first;
  for (const Shard& shard : val.shards()) {
    const auto path = by_path.find(real_path(shard.path()));
    const auto content = shard.info() ? by_content.find(shard.info()->bin_xxh64) : by_content.end();
    if (path == by_path.end() && content == by_content.end()) continue;
    if (++count > 1) continue;
    first = path != by_path.end() ? concat(shard.path().native(), " is in both")
                                  : concat(shard.path().native(), " holds the tokens of ",
                                           content->second->path().native());
  }
  if (count == 0) return "";
  return concat("data.train and data.val share ", count,
                count == 1 ? " shard: " : " shards: ", first,
                "; the validation loss will be that of text the model was trained on");
}

}  // namespace

std::vector<std::string> config_warnings(const ResolvedConfig& config, const Dataset* train,
                                         const Dataset* val) {
  const OptimizerConfig& optimizer = config.optimizer;
  const int64_t steps = config.run.steps, window = config.model.window;
  std::vector<std::string> lines;
  if (optimizer.warmup_steps > steps) {
    lines.push_back(concat("optimizer.warmup_steps = ", optimizer.warmup_steps,
                           " is more than run.steps = ", steps, ": the learning rate ends at ",
                           learning_rate(optimizer, steps, steps - 1), " and never reaches ",
                           optimizer.lr));
  }
  if (block_type(config.model.block).reads("window") && window != kFullWindow &&
      window > config.data.seq_len) {
    lines.push_back(concat("model.window = ", window,
                           " is more than data.seq_len = ", config.data.seq_len,
                           ": training never sees keys that far away; if that is "
                           "intended, \"full\" means the same"));
  }
  if (train && val) {
    const std::string shared = shared_shards(*train, *val);
    if (!shared.empty()) lines.push_back(shared);
  }
  if (config.run.eval_every > 0 && config.data.val.empty()) {
    lines.push_back(concat("run.eval_every = ", config.run.eval_every,
                           ", but data.val is empty: nothing is evaluated"));
  }
  const CheckpointConfig& checkpoint = config.checkpoint;
  if (checkpoint.keep_every > 0 && checkpoint.every > 0 && checkpoint.keep_last > 0 &&
      checkpoint.keep_every % checkpoint.every != 0) {
    lines.push_back(concat("checkpoint.keep_every = ", checkpoint.keep_every,
                           " is not a multiple of checkpoint.every = ", checkpoint.every,
                           ": only checkpoints at multiples of both are kept"));
  }
  if (optimizer.decay_steps > 0 && optimizer.schedule != "wsd") {
    lines.push_back(concat("optimizer.decay_steps = ", optimizer.decay_steps,
                           " applies only to schedule \"wsd\", not to \"", optimizer.schedule,
                           "\""));
  }
  if (train && config.data.reset_documents &&
      train->documents() == static_cast<int64_t>(train->shards().size())) {
    lines.push_back(
        "data.reset_documents is set, but every shard of data.train is one document; llm.c shards "
        "need data.document_delimiter");
  }
  return lines;
}

}  // namespace rodimus
