// README.md of an exported model, as the hubs of other programs show it: what the model is, how it
// was trained, how to load it. Only what the checkpoint and its run record: what they do not know
// is left out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "interop/hf_config.h"
#include "train/config/config.h"
#include "train/run_state.h"

namespace rodimus {

// Results up to one step, from the metrics.jsonl of a run.
struct RunFigures {
  std::optional<double> train_loss;  // of that step; nats per token
  struct Evaluation {
    int64_t step = 0;
    double loss = 0, perplexity = 0;
    std::optional<double> bits_per_byte = {};
  };
  std::optional<Evaluation> validation;  // the last one
};

// Reads `metrics`; a file that is absent, and lines that do not have the form, give nothing.
RunFigures read_figures(const std::filesystem::path& metrics, int64_t step);

struct ModelCard {
  std::string name;
  HfForm form = HfForm::authors;
  WeightType type = WeightType::f32;
  const Config& config;
  const RunState& state;
  const RunFigures& figures;
  int64_t parameters = 0;
  std::string tokenizer = {};   // the name of its file in the folder; "" = none
  bool tokenizer_json = false;  // whether tokenizer.json is there as well
  int64_t begin = -1;           // the token that stands before a document; -1: none
  std::string command;          // that wrote the folder
};
std::string format_model_card(const ModelCard& card);

}  // namespace rodimus
