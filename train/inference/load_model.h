// A model for inference out of a checkpoint.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "layers/model.h"
#include "train/config/config.h"

namespace rodimus {

// The step folder that `path` stands for: itself, or of a run folder its newest sound one.
// `problems` (may be null) receives one line per newer one that is damaged. Throws Error when there
// is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& path,
                                      std::vector<std::string>* problems);

// The run folder that a step folder lies in, however its path is written ("step_1/", ".").
std::filesystem::path run_folder_of(const std::filesystem::path& step_folder);

struct LoadedModel {
  std::filesystem::path folder;
  TrainState state;
  Config config;                 // that of the run
  std::unique_ptr<Model> model;  // without gradients
  DType compute = DType::f32;    // that it is to be run in
  std::string compute_note;      // one line when that is not what the run computed in, else ""
};

// `path` as in find_checkpoint(). `compute`: "f32", "bf16", "auto" (as for run.compute), or "run",
// the type that the checkpoint was trained in. Throws Error as the two functions above do.
LoadedModel load_model(const std::filesystem::path& path, Exec& exec, const std::string& compute,
                       std::vector<std::string>* problems);

// The name under which a run folder keeps the tokenizer of its run, so that it can be moved.
inline constexpr const char* kRunTokenizer = "tokenizer.model";

// The tokenizer file to read: `given` (--tokenizer) unless it is empty, else that of the run, which
// is the copy in its folder, or lies where the configuration says; "" when the run had none. Throws
// Error when it is there no more.
std::string find_tokenizer(const std::string& given, const LoadedModel& loaded);

}  // namespace rodimus
