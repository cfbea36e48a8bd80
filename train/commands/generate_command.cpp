// `rodimus generate`: text from a checkpoint. Text is streamed to stdout, everything else goes to
// stderr.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/tokenizer.h"
#include "train/commands/commands.h"
#include "train/commands/mpi_session.h"
#include "train/commands/option_checks.h"
#include "train/inference/document_start.h"
#include "train/inference/generate.h"
#include "train/inference/load_model.h"
#include "train/placement.h"
#include "train/signals.h"

namespace rodimus {
namespace {

struct Options {
  std::string checkpoint, prompt, tokenizer, compute = "run", device = "auto";
  std::vector<int32_t> ids;
  GenerateConfig generate;
  int threads = 0;
  bool no_bos = false;
};

std::vector<int32_t> prompt_ids(const Options& options, const std::optional<Tokenizer>& tokenizer,
                                const DocumentStart& start) {
  if (!options.ids.empty()) return options.ids;
  if (!tokenizer) {
    fail("the run had no tokenizer: give the prompt as token ids (--ids 17,4,99) or name a ",
         "tokenizer (--tokenizer FILE)");
  }
  std::vector<int32_t> ids = tokenizer->encode(options.prompt);
  if (start.put_before(ids)) ids.insert(ids.begin(), start.token);
  // The first word needs a token before it; in training that is the EOS of another document.
  if (ids.empty() && tokenizer->eos_id() >= 0 && !options.no_bos)
    ids.push_back(tokenizer->eos_id());
  return ids;
}

void run(const Options& options) {
  validate(options.generate.sampling);
  Context ctx{place_rank(options.device, options.threads, *make_single())};
  std::vector<std::string> problems;
  const LoadedModel loaded = load_model(options.checkpoint, ctx.exec, options.compute, &problems);
  ctx.compute = loaded.compute;
  if (!loaded.compute_note.empty()) fmt::print(stderr, "note: {}\n", loaded.compute_note);
  for (const std::string& problem : problems) fmt::print(stderr, "rodimus: warning: {}\n", problem);
  const std::optional<Tokenizer> tokenizer = open_tokenizer(options.tokenizer, loaded);
  GenerateConfig config = options.generate;
  if (tokenizer) {
    config.vocab = tokenizer->vocab_size();
    config.stop = tokenizer->eos_id();
  }
  const DocumentStart start =
      document_start(loaded.config, tokenizer ? tokenizer->eos_id() : -1, options.no_bos);
  const std::vector<int32_t> prompt = prompt_ids(options, tokenizer, start);
  fmt::print(stderr, "{} (step {}), {} prompt tokens{}\n", loaded.folder.native(),
             loaded.state.step, prompt.size(),
             options.ids.empty() ? "; the text begins so: " + start.text : "");

  std::optional<StreamDecoder> decoder;
  if (tokenizer) decoder.emplace(*tokenizer);
  const auto show = [](const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  if (options.ids.empty()) show(options.prompt);
  install_stop_signals();
  bool first = true;
  const GenerateTimes times = generate(ctx, *loaded.model, prompt, config, [&](int32_t id) {
    show(decoder ? decoder->push(id) : fmt::format("{}{}", first ? "" : " ", id));
    first = false;
    return true;
  });
  show((decoder ? decoder->finish() : "") + "\n");
  fmt::print(
      stderr, "prompt: {} tokens, {:.1f} tokens/s; generated: {} tokens, {:.1f} tokens/s{}\n",
      times.prompt_tokens, static_cast<double>(times.prompt_tokens) / times.prompt_s, times.tokens,
      static_cast<double>(times.tokens) / times.tokens_s, stop_requested() ? " (interrupted)" : "");
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  GenerateConfig& generate = options->generate;
  Command command(app, "generate", "Continue a prompt with a trained model");
  command
      .option("--checkpoint", options->checkpoint,
              "a folder step_..., or a run folder: its newest intact checkpoint")
      .required()
      .check(not_empty());
  const Option prompt = command.option("--prompt", options->prompt,
                                       "text to continue, taken as the start of a document: after "
                                       "EOS, as in training (see --no-bos). Default: a new "
                                       "document");
  command
      .option("--ids", options->ids,
              "the prompt as token ids, separated by commas; nothing is put before them")
      .delimiter(',')
      .check(integer_in(0, INT32_MAX))
      .excludes(prompt);
  command.flag("--no-bos", options->no_bos,
               "put nothing before the prompt: it is from the middle of a document");
  command.option("--tokens", generate.max_tokens, "most tokens to generate")
      .check(integer_in(1))
      .show_default();
  command
      .option("--temperature", generate.sampling.temperature,
              "divides the logits; 0: always the most likely token")
      .check(number_in({.low = 0}))
      .show_default();
  command.option("--top-k", generate.sampling.top_k, "only the k most likely tokens; 0: all")
      .check(integer_in(0))
      .show_default();
  command
      .option("--top-p", generate.sampling.top_p,
              "only the fewest tokens whose probabilities reach p")
      .check(number_in({.low = 0, .high = 1, .above = true}))
      .show_default();
  command.option("--seed", generate.seed, "same seed, same text").check(any_seed()).show_default();
  command
      .option("--tokenizer", options->tokenizer, "SentencePiece model (default: that of the run)")
      .check(not_empty());
  add_inference_options(command, options->compute, options->device, options->threads);
  command.example(
      "  rodimus generate --checkpoint runs/demo --prompt \"The scheduler\" --tokens 200 "
      "--temperature 0.8 --top-p 0.95\n"
      "streams the text to stdout and tokens per second to stderr. Ctrl-C stops it at a whole "
      "token.");
  command.run([options] {
    require_single_process("generate");
    run(*options);
  });
}

}  // namespace rodimus
