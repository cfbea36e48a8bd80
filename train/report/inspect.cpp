#include "train/report/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/json.h"
#include "checkpoints/checkpoint.h"
#include "data/round_trip.h"
#include "data/shard.h"
#include "data/tokenizer.h"
#include "kernels/device.h"
#include "train/config/resolve.h"
#include "train/dry_step.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Runs `look`; an Error becomes a problem.
void keep_problem(std::vector<std::string>& problems, const std::function<void()>& look) {
  try {
    look();
  } catch (const Error& error) {
    problems.emplace_back(error.what());
  }
}

// What training with a configuration requires on one rank of this machine.
struct TrainingFacts {
  int64_t micro_batch = 0;
  DType compute = DType::f32;
  TrainingMemory memory, with_recompute;
};

TrainingFacts training_facts(const Config& config) {
  TrainingFacts facts;
  const bool on_gpu = config.run.device != "cpu" && find_gpus().count > 0;
  facts.micro_batch = config.run.micro_batch > 0 ? config.run.micro_batch : config.run.global_batch;
  facts.compute = resolve_compute(config.run.compute, on_gpu ? Device::cuda : Device::cpu);
  const int threads = config.run.threads > 0
                          ? config.run.threads
                          : static_cast<int>(std::thread::hardware_concurrency());
  const Dry machine = on_gpu ? Dry{Cuda{}} : Dry{Cpu{threads}};
  const auto memory = [&](bool recompute) {
    return dry_step(config.model, machine, facts.compute,
                    {.B = facts.micro_batch,
                     .T = config.data.seq_len,
                     .micro_batches = config.run.global_batch / facts.micro_batch,
                     .recompute = recompute,
                     .documents = config.data.reset_documents},
                    config.optimizer)
        .memory;
  };
  facts.memory = memory(false);
  facts.with_recompute = memory(true);
  return facts;
}

Json to_json(const TrainingFacts& facts) {
  const TrainingMemory& bytes = facts.memory;
  // Recomputation changes only the entries listed under it.
  Json json = {{"micro_batch", facts.micro_batch},     {"compute", name_of(facts.compute)},
               {"parameters_bytes", bytes.parameters}, {"gradients_bytes", bytes.gradients},
               {"moments_bytes", bytes.moments},       {"batch_bytes", bytes.batch}};
  for (const bool recompute : {false, true}) {
    const TrainingMemory& with = recompute ? facts.with_recompute : facts.memory;
    json[recompute ? "with_recompute" : "without_recompute"] = {
        {"activations_bytes", with.activations},
        {"workspace_bytes", with.workspace},
        {"total_bytes", with.total()}};
  }
  return json;
}

Json config_facts(const Config& config) {
  const ModelFacts model = model_facts(config.model, config.data.seq_len);
  Json facts = rodimus::to_json(model);
  const int64_t tokens = config.run.global_batch * config.data.seq_len;
  facts["compute"]["training_flops_per_step"] =
      3 * model.forward_flops_per_token * static_cast<double>(tokens);
  facts["training"] = {{"steps", config.run.steps},
                       {"global_batch", config.run.global_batch},
                       {"tokens", config.run.steps * tokens}};
  facts["memory"] = to_json(training_facts(config));
  return facts;
}

void inspect_config(const fs::path& path, Inspection& result) {
  result.facts = {{"kind", "configuration"}, {"path", path.native()}};
  keep_problem(result.problems, [&] { result.facts.update(config_facts(load_config(path, {}))); });
}

// What normalising tokenizers change: white space, and characters that have another form.
constexpr const char* kRoundTripSamples[] = {
    "int main(void) {\n\tif (x)  return 0;\r\n}\n\n\n\t\t/* end */\n",
    "  Two  spaces, a trailing one ",
    "\xef\xac\x81ve \xc2\xbd \xe2\x91\xa0 \xef\xbc\xa1\xef\xbc\xa2 x\xc2\xb2, "
    "a\xc2\xa0no-break\xe3\x80\x80wide space",
    "caf\xc3\xa9 and cafe\xcc\x81; Upper and LOWER; \xce\xb1 \xe2\x86\x92 \xce\xb2",
    "\xe4\xb8\xad\xe6\x96\x87 \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e "
    "\xe0\xb9\x84\xe0\xb8\x97\xe0\xb8\xa2 \xd8\xb9\xd8\xb1\xd8\xa8\xd9\x8a \xf0\x9f\xa6\x8b",
    "the space mark \xe2\x96\x81 itself"};

void inspect_tokenizer(const fs::path& path, Inspection& result) {
  result.facts = {{"kind", "tokenizer"}, {"path", path.native()}};
  keep_problem(result.problems, [&] {
    const Tokenizer tokenizer = Tokenizer::load(path);
    result.facts["vocab_size"] = tokenizer.vocab_size();
    result.facts["eos_id"] = tokenizer.eos_id();
    result.facts["hash"] = tokenizer.hash();
    result.facts["round_trips"] = true;
    for (const std::string sample : kRoundTripSamples) {
      const std::string decoded = tokenizer.decode(tokenizer.encode(sample));
      if (decoded == sample) continue;
      result.facts["round_trips"] = false;
      result.facts["changes"].push_back(describe_change(sample, decoded));
    }
  });
}

Json inspect_shard(const fs::path& path, std::vector<std::string>& problems) {
  Json facts = {{"path", path.native()}};
  keep_problem(problems, [&] {
    const Shard shard(path);
    facts["tokens"] = shard.tokens();
    facts["documents"] = shard.documents();
    facts["token_type"] = shard.token_type() == TokenType::u16 ? "uint16" : "int32";
    if (const auto& info = shard.info()) {
      facts["vocab_size"] = info->vocab_size;
      facts["text_bytes"] = info->text_bytes;
      if (info->text_words >= 0) facts["text_words"] = info->text_words;
      if (info->lossless) facts["lossless"] = *info->lossless;
      facts["tokenizer_hash"] = info->tokenizer_hash;
    } else {
      facts["checksums"] = "none (no .json beside it): structure checked, content not";
    }
    shard.verify(0);
  });
  return facts;
}

// All shards of a folder, both train and val: each .bin with or without its .idx.
std::vector<fs::path> shards_in(const fs::path& folder) {
  std::set<fs::path> prefixes;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().native();
    if (extension == ".bin" || extension == ".idx")
      prefixes.insert(fs::path(entry.path()).replace_extension());
  }
  return {prefixes.begin(), prefixes.end()};
}

void inspect_shards(const fs::path& path, const std::vector<fs::path>& shards, Inspection& result) {
  result.facts = {{"kind", shards.size() == 1 ? "shard" : "shards"}, {"path", path.native()}};
  for (const fs::path& shard : shards)
    result.facts["shards"].push_back(inspect_shard(shard, result.problems));
}

void inspect_step(const fs::path& folder, Inspection& result) {
  result.facts.update(Json{{"checkpoint", folder.native()}});
  keep_problem(result.problems, [&] {
    const CheckpointReader reader(folder);
    const TrainState& state = reader.state();
    result.facts["step"] = state.step;
    result.facts["sample"] = state.sample;
    result.facts["ranks"] = reader.world_size();
    result.facts["groups"] = reader.groups();
    result.facts["tensors"] = reader.layout().tensors.size();
    result.facts["tokenizer_hash"] = state.tokenizer_hash;
    const std::string origin = "configuration in " + folder.native();
    result.facts.update(config_facts(parse_config(state.config_toml, origin, {})));
    reader.verify();
  });
}

void inspect_run(const fs::path& path, const std::vector<fs::path>& folders, Inspection& result) {
  result.facts = {{"kind", "run"}, {"path", path.native()}};
  // Describes the newest one in full, and of the others only whether they are intact.
  for (const fs::path& folder : folders) {
    const size_t before = result.problems.size();
    if (folder == folders.back()) {
      inspect_step(folder, result);
    } else {
      keep_problem(result.problems, [&] { CheckpointReader(folder).verify(); });
    }
    result.facts["checkpoints"].push_back(
        {{"name", folder.filename().native()}, {"sound", result.problems.size() == before}});
  }
}

std::string readable(const std::string& key, const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (key.ends_with("_bytes") && value.is_number()) {
    const double bytes = value.get<double>();
    const char* unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t i = 0;
    double scaled = bytes;
    for (; scaled >= 1024 && i < 4; ++i) scaled /= 1024;
    return i == 0 ? to_text(value) + " B" : fmt::format("{:.2f} {}", scaled, unit[i]);
  }
  if (value.is_number_float()) return fmt::format("{:.4g}", value.get<double>());
  return to_text(value);
}

void append_lines(const Json& json, const std::string& indent, std::string& text) {
  for (const auto& [key, value] : json.items()) {
    const bool list_of_objects = value.is_array() && !value.empty() && value.front().is_object();
    if (value.is_object()) {
      text += indent + key + ":\n";
      append_lines(value, indent + "  ", text);
    } else if (list_of_objects) {
      text += indent + key + ":\n";
      for (const Json& element : value) {
        std::string lines;
        append_lines(element, indent + "    ", lines);
        lines[indent.size() + 2] = '-';
        text += lines;
      }
    } else {
      text += fmt::format("{}{}: {}\n", indent, key, readable(key, value));
    }
  }
}

}  // namespace

ModelFacts model_facts(const ModelConfig& config, int64_t seq_len) {
  const DryStep step = dry_step(config, {Cpu{1}}, DType::f32, {.T = seq_len});
  return {config, seq_len, step.parameters, step.useful_flop() / 3 / static_cast<double>(seq_len)};
}

Json to_json(const ModelFacts& facts) {
  const ModelConfig& config = facts.config;
  Json json;
  json["model"] = {
      {"block", config.block},
      {"vocab_size", config.vocab_size},
      {"d_model", config.d_model},
      {"n_layers", config.n_layers},
      {"seq_len", facts.seq_len},
      {"parameters", facts.parameters},
      {"parameters_without_embedding", facts.parameters - config.vocab_size * config.d_model}};
  if (config.vocab_size == 0)
    json["model"]["note"] = "vocab_size comes from the tokenizer: embedding and head not counted";
  // Weights and two moments, in f32.
  json["checkpoint_bytes"] = 12 * facts.parameters;
  json["compute"] = {{"forward_flops_per_token", facts.forward_flops_per_token},
                     {"training_flops_per_token", 3 * facts.forward_flops_per_token}};
  return json;
}

Inspection inspect(const fs::path& path) {
  if (!fs::exists(path) && !fs::exists(path.native() + ".bin") &&
      !fs::exists(path.native() + ".idx")) {
    fail(path.native(), " does not exist");
  }
  Inspection result;
  if (!fs::is_directory(path)) {
    const std::string extension = path.extension().native();
    if (extension == ".toml") {
      inspect_config(path, result);
    } else if (extension == ".model") {
      inspect_tokenizer(path, result);
    } else if (extension == ".bin" || extension == ".idx" || !fs::exists(path)) {
      inspect_shards(path, {path}, result);
    } else {
      fail(path.native(), " is of an unknown kind: expected a configuration (.toml), a tokenizer ",
           "(.model), a shard (.bin, .idx) or a folder");
    }
    return result;
  }
  if (fs::exists(path / "checkpoint.h5")) {
    result.facts["kind"] = "checkpoint";
    inspect_step(path, result);
    return result;
  }
  if (const auto folders = list_checkpoints(path); !folders.empty()) {
    inspect_run(path, folders, result);
    return result;
  }
  const std::vector<fs::path> shards = shards_in(path);
  if (shards.empty())
    fail(path.native(), " holds neither checkpoints (step_...) nor shards (.bin)");
  inspect_shards(path, shards, result);
  return result;
}

std::string describe(const Inspection& inspection) {
  std::string text;
  append_lines(inspection.facts, "", text);
  if (inspection.problems.empty()) return text + "sound\n";
  for (const std::string& problem : inspection.problems) text += "DAMAGED: " + problem + "\n";
  return text;
}

}  // namespace rodimus
