// What a path contains, and whether it is intact: checkpoints and run folders, shards and folders
// of them, tokenizer models, configurations.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "layers/config.h"

namespace rodimus {

struct Inspection {
  nlohmann::ordered_json facts;       // "kind", then what is known; keys carry units (_bytes)
  std::vector<std::string> problems;  // one line each; empty: intact
};

// Reads everything that a checksum covers. Throws Error if the path does not exist or is of an
// unknown kind; damage is reported in `problems`.
Inspection inspect(const std::filesystem::path& path);

// Lines "key: value" with readable sizes, then the verdict.
std::string describe(const Inspection& inspection);

// Numbers that depend only on the model's shape; nothing is allocated. vocab_size 0: without
// embedding and head.
struct ModelFacts {
  ModelConfig config;
  int64_t seq_len = 0, parameters = 0;
  double forward_flops_per_token = 0;
};
ModelFacts model_facts(const ModelConfig& config, int64_t seq_len);
nlohmann::ordered_json to_json(const ModelFacts& facts);

}  // namespace rodimus
