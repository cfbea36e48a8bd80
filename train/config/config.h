// The configuration of a run as written: TOML file, then --set key=value in order. Every key is a
// field here, declared in the table of config_schema.cpp. What a run actually uses is a
// ResolvedConfig (resolve.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "layers/config.h"

namespace rodimus {

struct DataConfig {
  std::vector<std::string> train;  // shard files, prefixes or folders
  std::vector<std::string> val;
  std::string tokenizer;         // SentencePiece model; "" = none (no bytes per token, no text)
  int64_t seq_len = 1024;        // T
  bool reset_documents = false;  // state, convolution and attention do not cross document borders
  int64_t document_delimiter = -1;  // llm.c shards: the token that begins a document; -1 = none
  bool shuffle = true;
  bool verify = true;  // checksums of the shards at start
};

struct OptimizerConfig {
  std::string name = "adamw";  // one of those in train/optimizers.h
  double lr = 3e-4;            // peak
  double min_lr = 3e-5;        // unless given: a tenth of lr
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;                // global gradient norm; 0 = no clipping
  std::string schedule = "cosine";  // "cosine", "wsd" (warm-up, stable, decay) or "constant"
  int64_t warmup_steps = 100;
  int64_t decay_steps = 0;  // wsd: length of the final decay; 0 = a tenth of the steps
};

struct RunConfig {
  std::string output = "runs/default";  // folder of checkpoints, metrics.jsonl, config.toml
  int64_t steps = 1000;
  int64_t global_batch = 8;  // sequences per optimizer step, over all ranks
  int64_t micro_batch = 0;   // sequences per forward pass and rank; 0 = global_batch / ranks
  uint64_t seed = 1;
  std::string compute = "auto";  // "f32", "bf16", "auto": bf16 if native (resolve_compute())
  std::string device = "auto";   // "auto", "cpu", "cuda"
  int threads = 0;               // per rank; 0 = cores / ranks on this node
  bool recompute = false;        // recompute activations per block
  int64_t eval_every = 0;        // steps; 0 = only at the end
  int64_t eval_windows = 0;      // 0 = all of data.val
  int64_t log_every = 1;
  int64_t check_every =
      0;  // steps between checks that all ranks hold the same parameters; 0 = at start only
  int64_t max_skipped = 20;  // consecutive non-finite steps before the run stops
  double peak_gflops = 0;    // per rank, for MFU; 0 = measured at start
};

struct CheckpointConfig {
  int64_t every = 500;     // steps; 0 = only at the end and on signals
  int64_t keep_last = 3;   // 0 = all
  int64_t keep_every = 0;  // additionally keep multiples of this; 0 = none
};

struct Config {
  ModelConfig model;
  DataConfig data;
  OptimizerConfig optimizer;
  RunConfig run;
  CheckpointConfig checkpoint;
};

// Reads `file` and applies `overrides` ("section.key=value", value in TOML syntax, bare words taken
// as strings). The error for an unknown key names the nearest known one; that for a wrong type or
// an invalid value names the key, the value and what is allowed; both name file and line. Data and
// ranks are not considered: model.vocab_size may still be 0, data.train empty.
Config load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides);

// The same from text (checkpoints hold it); `origin` names it in errors.
Config parse_config(const std::string& toml, const std::string& origin,
                    const std::vector<std::string>& overrides);

// The full configuration as TOML: parse_config(to_toml(c)) == c.
std::string to_toml(const Config& config);

// All keys with their defaults, allowed values and meaning, as a commented TOML file.
std::string config_reference();

}  // namespace rodimus
