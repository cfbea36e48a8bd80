// `rodimus export`: a checkpoint of this program becomes one that other programs load.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/atomic_folder.h"
#include "base/error.h"
#include "base/paths.h"
#include "base/progress.h"
#include "base/words.h"
#include "checkpoints/checkpoint.h"
#include "data/tokenizer_json.h"
#include "interop/export.h"
#include "interop/hf_config.h"
#include "interop/model_code.h"
#include "kernels/dry.h"
#include "layers/model.h"
#include "train/commands/commands.h"
#include "train/commands/mpi_session.h"
#include "train/commands/option_checks.h"
#include "train/inference/document_start.h"
#include "train/inference/load_model.h"
#include "train/report/model_card.h"
#include "train/run_state.h"
#include "train/signals.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string checkpoint, out, tokenizer;
  HfForm form = HfForm::authors;
  WeightType type = WeightType::f32;
  double shard_gb = 5;
};

// The last part of a path, as a shell reads it: the card may be published, and where a folder is
// concerns nobody else.
std::string shown(const std::string& path) {
  const std::string word = canonical_path(path).filename();
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%";
  if (word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string text = "'";
  for (const char c : one_line(word)) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

std::string command_line(const Arguments& arguments) {
  std::string text =
      fmt::format("rodimus export {} --out {} --to {} --dtype {}", shown(arguments.checkpoint),
                  shown(arguments.out), option_of(arguments.form), names_of(arguments.type).option);
  if (arguments.shard_gb != Arguments().shard_gb)
    text += fmt::format(" --shard-gb {}", arguments.shard_gb);
  if (!arguments.tokenizer.empty()) text += " --tokenizer " + shown(arguments.tokenizer);
  return text;
}

HfTokens tokens_of(const Config& config, const std::optional<Tokenizer>& tokenizer) {
  const int32_t end = tokenizer ? tokenizer->eos_id() : -1;
  return {.begin = document_start(config, end, /*no_bos=*/false).token, .end = end};
}

void run(const Arguments& arguments) {
  std::vector<std::string> problems;
  const fs::path folder = find_checkpoint(arguments.checkpoint, &problems);
  for (const std::string& problem : problems) fmt::print(stderr, "rodimus: warning: {}\n", problem);
  const CheckpointReader reader(folder);
  const FoundCheckpoint found{folder, reader.state(), config_of(reader)};
  const RunState state = run_state(reader);
  const std::optional<Tokenizer> tokenizer = open_tokenizer(arguments.tokenizer, found);
  const HfTokens tokens = tokens_of(found.config, tokenizer);
  const HfConfig described{arguments.form, found.config.model, found.config.data.seq_len};
  const std::string config = format_hf_config(described, tokens, arguments.type);

  // Names and shapes only: the values pass from file to file, a piece at a time.
  const DryMemory nothing_allocated(Device::cpu);
  Exec exec = Dry{Cpu{1}};
  Model model(found.config.model, exec, DType::f32, /*grads=*/false);
  const ParameterBuffers& buffers = model.parameters();
  const FlatLayout layout = layout_of(buffers);
  require_same_tensors(layout, reader);

  install_stop_signals();
  AtomicFolder output(arguments.out);
  const fs::path& into = output.temporary();
  const uint64_t bytes = weight_bytes(buffers.parameters, arguments.type);
  Progress progress("exporting:", bytes, true);
  const ExportPlan plan{.form = arguments.form,
                        .type = arguments.type,
                        .shard_bytes = static_cast<uint64_t>(arguments.shard_gb * 1e9)};
  const int64_t files = export_weights(
      into, buffers.parameters,
      [&](const Parameter& p, int64_t first, int64_t count, float* values) {
        reader.read("params", layout, {p.offset + first, p.offset + first + count}, values);
      },
      plan, folder.native(),
      [&](uint64_t done) {
        if (stop_requested()) fail("export: stopped by a signal; nothing was written");
        progress.update(done);
      });
  progress.finish("");

  write_whole(into / "config.json", config);
  write_whole(into / "generation_config.json", format_generation_config(tokens));
  std::optional<std::string> tokenizer_json;
  if (tokenizer) {
    write_whole(into / kRunTokenizer, tokenizer->model());
    const auto begin = static_cast<int32_t>(tokens.begin);
    tokenizer_json = format_tokenizer_json(*tokenizer, begin);
    if (tokenizer_json) {
      write_whole(into / "tokenizer.json", *tokenizer_json);
      write_whole(into / "tokenizer_config.json", format_tokenizer_config(*tokenizer, begin));
    } else {
      fmt::print(
          stderr,
          "note: no tokenizer.json would give the ids of this tokenizer (docs/formats.md says "
          "why): only {} is written\n",
          kRunTokenizer);
    }
  }
  if (arguments.form == HfForm::authors)
    for (const ModelCode& file : model_code()) write_whole(into / file.name, file.text);
  write_whole(into / "README.md",
              format_model_card(
                  {.name = one_line(canonical_path(arguments.out).filename()),
                   .form = arguments.form,
                   .type = arguments.type,
                   .config = found.config,
                   .state = state,
                   .figures = read_figures(run_folder_of(folder) / "metrics.jsonl", state.step),
                   .parameters = buffers.count(),
                   .tokenizer = tokenizer ? kRunTokenizer : "",
                   .tokenizer_json = tokenizer_json.has_value(),
                   .begin = tokens.begin,
                   .command = command_line(arguments)}));
  output.publish();
  fmt::print(
      "{}: {} parameters in {}, {:.1f} MB in {} file{}, in {} form; README.md says how to load "
      "it\n",
      arguments.out, buffers.count(), names_of(arguments.type).option,
      static_cast<double>(bytes) * 1e-6, files, files == 1 ? "" : "s", name_of(arguments.form));
}

}  // namespace

void add_export_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  Command command(app, "export", "Turn a checkpoint into one that transformers loads");
  command
      .option("checkpoint", arguments->checkpoint,
              "a folder step_..., or a run folder: its newest intact checkpoint")
      .required()
      .check(not_empty());
  command.option("--out", arguments->out, "folder to write; it must be absent or empty")
      .required()
      .check(not_empty());
  command.choice<HfForm>("--to", arguments->form,
                         {{"authors", HfForm::authors}, {"fla", HfForm::fla}},
                         "authors: names and keys of the released models, with model code for "
                         "transformers beside the weights; fla: those of flash-linear-attention");
  command.choice<WeightType>(
      "--dtype", arguments->type,
      {{"f32", WeightType::f32}, {"bf16", WeightType::bf16}, {"f16", WeightType::f16}},
      "type of the stored weights. f32 loses nothing, so it is the default: import gives back the "
      "same bits. bf16 and f16 take half the space; numbers are rounded to nearest even");
  command
      .option("--shard-gb", arguments->shard_gb,
              "most GB (10^9 bytes) of weights in a file; a larger model is cut into several")
      .check(number_in({.low = 0, .high = 1e9, .above = true}))
      .show_default();
  command
      .option("--tokenizer", arguments->tokenizer, "SentencePiece model (default: that of the run)")
      .check(not_empty());
  command.example(
      "  rodimus export runs/first --out first-hf --dtype bf16\n"
      "writes config.json, model.safetensors, the model code and a model card (README.md). The "
      "folder appears\nunder its name once it is complete.");
  command.run([arguments] {
    require_single_process("export");
    run(*arguments);
  });
}

}  // namespace rodimus
