// rodimus eval: perplexity of a checkpoint on shards.
#include <fmt/core.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/progress.h"
#include "data/verified_files.h"
#include "train/commands/commands.h"
#include "train/commands/mpi_session.h"
#include "train/commands/option_checks.h"
#include "train/inference/evaluate.h"
#include "train/inference/load_model.h"
#include "train/placement.h"
#include "train/run_data.h"
#include "train/signals.h"

namespace rodimus {
namespace {

struct Arguments {
  std::string checkpoint;
  std::vector<std::string> data;
  std::string tokenizer, mode = "windows", compute = "run", device = "auto";
  int64_t seq_len = 0, micro_batch = 0, limit = 0;
  int threads = 0;
  bool json = false, no_verify = false, no_bos = false;
};

// The token that ends a document in `data`, from the shards or else the tokenizer; -1: none or
// unknown.
int32_t eos_of(const RunData& data) {
  for (const Shard& shard : data.val->shards())
    if (shard.info()) return shard.info()->eos_id;
  return data.tokenizer ? data.tokenizer->eos_id() : -1;
}

nlohmann::json known_or_null(bool known, double value) {
  return known ? nlohmann::json(value) : nlohmann::json();
}

nlohmann::json known_or_null(CountFrom from) {
  return name_of(from) ? nlohmann::json(name_of(from)) : nlohmann::json();
}

void evaluate_checkpoint(const Arguments& arguments, Communicator& communicator) {
  install_stop_signals();
  Context ctx;
  LoadedModel loaded;
  DataSources sources;
  std::vector<std::string> problems;
  together(communicator, [&] {
    ctx.exec = place_rank(arguments.device, arguments.threads, communicator);
    loaded = load_model(arguments.checkpoint, ctx.exec, arguments.compute, &problems);
    ctx.compute = loaded.compute;
    const DataFiles files{.train = {},
                          .val = arguments.data.empty() ? loaded.config.data.val : arguments.data,
                          .tokenizer = find_tokenizer(arguments.tokenizer, loaded),
                          .document_delimiter = loaded.config.data.document_delimiter};
    if (files.val.empty())
      fail("eval: the checkpoint's configuration has no data.val: name shards with --data");
    sources = open_sources(files);
  });
  const Config& config = loaded.config;
  const int64_t seq_len = arguments.seq_len > 0 ? arguments.seq_len : config.data.seq_len;
  const VerifyOptions verify{.read = !arguments.no_verify,
                             .memory = run_folder_of(loaded.folder) / kVerifiedFile};
  RunData data =
      open_data(std::move(sources), config.model.vocab_size, seq_len, verify, communicator);
  together(communicator, [&] { require_run_tokenizer(data, loaded.state.tokenizer_hash); });

  if (communicator.rank() == 0) {
    for (const std::string& problem : problems)
      fmt::print(stderr, "skipping a damaged checkpoint: {}\n", problem);
    if (!loaded.compute_note.empty()) fmt::print(stderr, "note: {}\n", loaded.compute_note);
  }

  const EvalOptions options{.micro_batch = arguments.micro_batch > 0
                                               ? arguments.micro_batch
                                               : std::max<int64_t>(1, config.run.micro_batch),
                            .limit = arguments.limit,
                            .reset_documents = config.data.reset_documents,
                            .token_bytes = data.token_bytes,
                            .text = data.val_text,
                            .start = document_start(config, eos_of(data), arguments.no_bos)};
  const bool windows = arguments.mode == "windows";
  const auto begin = std::chrono::steady_clock::now();
  const auto result =
      windows ? evaluate_windows(*loaded.model, ctx, *data.val, options, communicator)
              : evaluate_documents(*loaded.model, ctx, *data.val, seq_len, options, communicator);
  if (!result) throw SharedError("eval: stopped by a signal");
  if (communicator.rank() != 0) return;
  const double seconds = seconds_since(begin);
  if (arguments.json) {
    nlohmann::json out{
        {"checkpoint", loaded.folder.string()},
        {"step", loaded.state.step},
        {"mode", arguments.mode},
        {"seq_len", seq_len},
        {"compute", name_of(ctx.compute)},
        {"document_start", windows ? "as it stands in the shard" : options.start.text},
        {"bos_token", !windows && options.start.token >= 0 ? nlohmann::json(options.start.token)
                                                           : nlohmann::json()},
        {"tokens", result->tokens},
        {"predictable_tokens", result->predictable},
        {"nats_per_token", result->loss()},
        {"bits_per_token", result->bits_per_token()},
        {"perplexity", result->perplexity()},
        {"bytes", result->bytes},
        {"bytes_from", known_or_null(result->bytes_from)},
        {"bits_per_byte", known_or_null(result->bytes > 0, result->bits_per_byte())},
        {"words", result->words},
        {"words_from", known_or_null(result->words_from)},
        {"perplexity_per_word", known_or_null(result->words > 0, result->perplexity_per_word())},
        {"ranks", communicator.world_size()},
        {"seconds", seconds}};
    fmt::print("{}\n", to_text(out));
    return;
  }
  fmt::print("{} (step {}), {} in {:.1f} s, {}\n", loaded.folder.string(), loaded.state.step,
             describe_scored(*result), seconds,
             windows ? fmt::format("windows of {}", seq_len)
                     : fmt::format("whole documents; one begins so: {}", options.start.text));
  fmt::print("perplexity {:.4f}, nats/token {:.5f}, bits/token {:.5f}, {}\n", result->perplexity(),
             result->loss(), result->bits_per_token(), describe_text_figures(*result));
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  Command command(app, "eval", "Perplexity of a checkpoint on held-out shards");
  command
      .option("--checkpoint", arguments->checkpoint,
              "A checkpoint, or a run (its newest intact checkpoint)")
      .required()
      .check(not_empty());
  command.option("--data", arguments->data, "Shards or folders; default: data.val of the run")
      .check(not_empty());
  command
      .option("--tokenizer", arguments->tokenizer,
              "SentencePiece model, for bits per byte; default: the run's")
      .check(not_empty());
  command
      .option("--mode", arguments->mode,
              "windows: pieces of seq_len tokens, each from an empty state, as in training, and "
              "the shorter tail of each shard; documents: whole documents with carried state, "
              "each after the EOS that stands before it in training (not with "
              "data.reset_documents, where a document begins in an empty state; llm.c shards: "
              "with data.document_delimiter)")
      .check(one_of({"windows", "documents"}))
      .show_default();
  command.option("--seq-len", arguments->seq_len, "Window length; default: the run's")
      .check(integer_in(1, kMaxSize));
  command
      .option("--micro-batch", arguments->micro_batch,
              "Windows per forward pass; default: the run's")
      .check(integer_in(1, kMaxSize));
  command.option("--limit", arguments->limit, "Windows or documents at most; 0: all")
      .check(integer_in(0));
  add_inference_options(command, arguments->compute, arguments->device, arguments->threads);
  command.flag("--no-bos", arguments->no_bos,
               "Documents: put nothing before them; their first token is not scored");
  command.flag("--no-verify", arguments->no_verify,
               "Do not read all shards for their checksums first");
  command.flag("--json", arguments->json, "Print one JSON object");
  command.example("  mpirun -n 2 rodimus eval --checkpoint runs/first --data my_data/val --json");
  command.run([arguments] {
    with_communicator(
        [&](Communicator& communicator) { evaluate_checkpoint(*arguments, communicator); });
  });
}

}  // namespace rodimus
