// `rodimus import`: a Hugging Face checkpoint becomes a checkpoint of this program.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"
#include "checkpoints/checkpoint.h"
#include "interop/hf_config.h"
#include "interop/import.h"
#include "interop/safetensors.h"
#include "interop/text_file.h"
#include "layers/model.h"
#include "train/commands/commands.h"
#include "train/commands/mpi_session.h"
#include "train/commands/option_checks.h"
#include "train/config/resolve.h"
#include "train/run_lock.h"
#include "train/run_state.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

// config.json says nothing about training, so everything but the model keeps its default.
Config config_for(const HfConfig& stored, const fs::path& out) {
  Config config;
  config.model = stored.model;
  config.run.output = out.native();
  if (stored.max_positions > 0) config.data.seq_len = stored.max_positions;
  return config;
}

// Checkpoints that are there belong to another run.
void require_free(const fs::path& out) {
  std::error_code ignored;
  if (!fs::exists(out, ignored)) return;
  if (!fs::is_directory(out, ignored)) fail("--out ", out.native(), " is not a folder");
  if (!list_checkpoints(out).empty())
    fail("--out ", out.native(), " already holds checkpoints; name another folder");
}

void run(const fs::path& from, const fs::path& out) {
  const fs::path config_file = from / "config.json";
  const HfConfig stored = parse_hf_config(read_text_file(config_file), config_file.native());
  const Config config = config_for(stored, out);
  try {
    config.model.validate();
  } catch (const Error& error) {
    fail(config_file.native(), ": ", error.what());
  }
  const WeightFolder weights(from);
  require_free(out);

  Exec exec = Cpu{1};
  Model model(config.model, exec, DType::f32, /*grads=*/false);
  ParameterBuffers& buffers = model.parameters();
  const ImportReport report = import_weights(weights, stored.form, config.model.tied, buffers);
  for (const std::string& name : report.passed_over)
    fmt::print(stderr, "passed over: {}, state of a decoding cache\n", name);

  // Nothing is written before all is read: a refused import leaves no folder behind.
  std::error_code error;
  fs::create_directories(out, error);
  if (error) fail("--out ", out.native(), ": cannot be created: ", error.message());
  const RunLock lock(out);
  require_free(out);  // still

  TrainState state = stored_form({}, resolve(config, {}), "");
  // Unresolved: device and type of the training are unknown, so each command chooses its own.
  state.config_toml = to_toml(config);
  const Range all{0, buffers.values.numel()};
  const OwnedArray values{"params", std::as_const(buffers.values).data<float>()};
  const fs::path folder =
      save_checkpoint(out, state, layout_of(buffers), all, {&values, 1}, *make_single());
  write_whole(out / "config.toml", state.config_toml);
  fmt::print("{}: {} of {} layers, {} parameters ({}), from {} form\n", folder.native(),
             config.model.block, config.model.n_layers, buffers.count(),
             fmt::join(report.types, ", "), name_of(stored.form));
}

}  // namespace

void add_import_command(CLI::App& app) {
  struct Arguments {
    std::string from, out;
  };
  auto arguments = std::make_shared<Arguments>();
  Command command(app, "import", "Turn a Hugging Face checkpoint into one of this program");
  command
      .option("folder", arguments->from,
              "with config.json and model.safetensors, or its shards and their index; in the form "
              "of the authors' code or of flash-linear-attention")
      .required()
      .check(not_empty());
  command.option("--out", arguments->out, "run folder to write: a checkpoint of step 0")
      .required()
      .check(not_empty());
  command.example(
      "  rodimus import Rodimus-Plus-Coder-1.6B-Chat --out runs/coder\n"
      "writes runs/coder/step_00000000, which eval, generate, inspect and train --init-from take.\n"
      "A model that this program would compute differently is refused, and the key named.");
  command.run([arguments] {
    require_single_process("import");
    run(arguments->from, arguments->out);
  });
}

}  // namespace rodimus
