#include "train/inference/load_model.h"

#include <utility>

#include "base/error.h"
#include "base/paths.h"
#include "train/config/resolve.h"
#include "train/run_state.h"

namespace rodimus {

namespace fs = std::filesystem;

fs::path find_checkpoint(const fs::path& path, std::vector<std::string>* problems) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail("no checkpoint at ", path.native(), ": it does not exist");
  if (fs::exists(path / "checkpoint.h5", ignored)) return path;
  std::vector<std::string> found;
  const auto folder = newest_sound_checkpoint(path, &found);
  if (!folder && !found.empty()) {
    fail(path.native(), ": none of its ", found.size(),
         " checkpoints is intact; the newest: ", found.front());
  }
  if (problems) *problems = std::move(found);
  if (folder) return *folder;
  fail("no checkpoint at ", path.native(),
       ": expected a folder step_... or a run folder with checkpoints");
}

fs::path run_folder_of(const fs::path& step_folder) {
  return canonical_path(step_folder).parent_path();
}

std::string find_tokenizer(const std::string& given, const FoundCheckpoint& found) {
  if (!given.empty()) return given;
  std::error_code ignored;
  const fs::path copy = run_folder_of(found.folder) / kRunTokenizer;
  const std::string& file = found.config.data.tokenizer;
  if (file.empty()) return "";
  if (fs::exists(copy, ignored)) return copy.string();
  if (!fs::exists(file, ignored)) {
    fail("the run used the tokenizer ", file, ", which is neither there nor in ", copy.native(),
         "; name it with --tokenizer");
  }
  return file;
}

std::optional<Tokenizer> open_tokenizer(const std::string& given, const FoundCheckpoint& found) {
  const std::string file = find_tokenizer(given, found);
  if (file.empty()) return {};
  Tokenizer tokenizer = Tokenizer::load(file);
  const std::string& trained = found.state.tokenizer_hash;
  if (!trained.empty() && trained != tokenizer.hash()) {
    fail(file, " is not the tokenizer the model was trained with (hash ", tokenizer.hash(),
         ", the checkpoint has ", trained, "); name the right one with --tokenizer");
  }
  if (const int64_t vocab = found.config.model.vocab_size; tokenizer.vocab_size() > vocab) {
    fail(file, " has ", tokenizer.vocab_size(), " tokens, the model only ", vocab,
         "; this is not the tokenizer it was trained with");
  }
  return tokenizer;
}

LoadedModel load_model(const fs::path& path, Exec& exec, const std::string& compute,
                       std::vector<std::string>* problems) {
  LoadedModel loaded;
  loaded.folder = find_checkpoint(path, problems);
  const CheckpointReader reader(loaded.folder);
  loaded.state = reader.state();
  loaded.config = config_of(reader);
  const Device device = device_of(exec);
  const std::string trained = loaded.config.run.compute;
  loaded.compute = resolve_compute(compute == "run" ? trained : compute, device);
  if (compute == "run" && trained == "auto") {
    loaded.compute_note =
        concat("the checkpoint does not record the type it was trained in: computing in ",
               describe_compute("auto", device), "; choose another with --compute");
  } else if (loaded.compute == DType::bf16 && !has_native_bf16(device)) {
    loaded.compute_note = "bf16 on a CPU without AVX512_BF16: bf16 products are computed in f32";
  } else if (trained != "auto" && trained != name_of(loaded.compute)) {
    loaded.compute_note = concat("computing in ", name_of(loaded.compute),
                                 ", though the run was trained in ", trained);
  }
  loaded.model =
      std::make_unique<Model>(loaded.config.model, exec, loaded.compute, /*grads=*/false);
  read_parameters(exec, reader, loaded.model->parameters());
  return loaded;
}

}  // namespace rodimus
