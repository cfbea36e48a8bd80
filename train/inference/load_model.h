// What a checkpoint is read for: its model for inference, or its parameters one by one.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "data/tokenizer.h"
#include "layers/model.h"
#include "train/config/config.h"

namespace rodimus {

// The step folder for `path`: `path` itself, or the newest intact one if it is a run folder.
// `problems` (may be null) receives one line per newer, damaged one. Throws Error if there is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& path,
                                      std::vector<std::string>* problems);

// The run folder that contains a step folder, however its path is written ("step_1/", ".").
std::filesystem::path run_folder_of(const std::filesystem::path& step_folder);

struct FoundCheckpoint {
  std::filesystem::path folder;
  TrainState state;
  Config config;  // of the run
};

struct LoadedModel : FoundCheckpoint {
  std::unique_ptr<Model> model;  // without gradients
  DType compute = DType::f32;    // to run the model in
  std::string compute_note;      // one line if that differs from the run's type, else ""
};

// `path` as in find_checkpoint(). `compute`: "f32", "bf16", "auto" (as for run.compute), or "run",
// the type that the checkpoint was trained in. Throws Error as the two functions above do.
LoadedModel load_model(const std::filesystem::path& path, Exec& exec, const std::string& compute,
                       std::vector<std::string>* problems);

// The name of the tokenizer's copy in a run folder, which makes the folder movable.
inline constexpr const char* kRunTokenizer = "tokenizer.model";

// The tokenizer file to read: `given` (--tokenizer) unless empty, else the run's, which is the copy
// in its folder or the file named in the configuration; "" if the run had none. Throws Error if the
// file no longer exists.
std::string find_tokenizer(const std::string& given, const FoundCheckpoint& found);

// The same, opened. Throws Error if it is not the tokenizer that the model was trained with, or has
// more tokens than the model.
std::optional<Tokenizer> open_tokenizer(const std::string& given, const FoundCheckpoint& found);

}  // namespace rodimus
