// `rodimus tokenize`: the command line of data/tokenize.h.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>

#include "data/tokenize.h"
#include "train/commands/commands.h"
#include "train/commands/mpi_session.h"
#include "train/commands/option_checks.h"
#include "train/cpu_quota.h"

namespace rodimus {
namespace {

// "\n\n" typed in a shell arrives as backslashes.
std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[++i];
    out += c == 'n' ? '\n' : c == 't' ? '\t' : c == '0' ? '\0' : c;
  }
  return out;
}

std::string describe(const char* name, const TokenizeOptions& options, const ShardInfo& info) {
  return fmt::format("{}: {} documents, {} tokens, {:.2f} bytes per token\n",
                     (options.out / name).native(), info.documents, info.tokens,
                     static_cast<double>(info.text_bytes) / static_cast<double>(info.tokens));
}

std::string list(const Places& places) {
  return fmt::format("{}{}", fmt::join(places.first, "; "),
                     places.count > places.first.size() ? "; ..." : "");
}

void run(TokenizeOptions options) {
  options.source.separator = unescape(options.source.separator);
  if (options.threads == 0) {
    const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    const double quota = cpu_quota();
    const std::string limited = describe_quota(quota, cores, 1);
    if (!limited.empty()) fmt::print(stderr, "rodimus: {}\n", limited);
    options.threads = threads_within(quota, cores, 1);
  }
  const TokenizeResult result = tokenize(options);
  const double megabytes =
      static_cast<double>(result.train.text_bytes + result.val.text_bytes) * 1e-6;
  fmt::print("{}", describe("train", options, result.train));
  if (result.val.documents > 0) fmt::print("{}", describe("val", options, result.val));
  if (result.skipped_documents + result.repaired_documents > 0) {
    fmt::print("invalid UTF-8: {} documents dropped, {} repaired: {}\n", result.skipped_documents,
               result.repaired_documents, list(result.invalid_utf8));
  }
  if (result.cut) {
    fmt::print(
        "too few documents for --val-fraction {}: the last {} of {} bytes of the {} document are "
        "val, "
        "cut at {}\n",
        options.val_fraction, result.cut->val_bytes,
        result.cut->val_bytes + result.cut->train_bytes,
        result.cut->document == 0 ? "only" : "last", result.cut->at);
  }
  if (result.changed_documents > 0) {
    fmt::print(
        "warning: the tokenizer changes the text of {} of {} documents: {}; it normalises or lacks "
        "characters, the model never sees the original\n",
        result.changed_documents, result.train.documents + result.val.documents, result.change);
  }
  if (result.bad_lines.count > 0) {
    fmt::print("bad lines: {} left out: {}\n", result.bad_lines.count, list(result.bad_lines));
  }
  fmt::print("{}: {} tokens, hash {}{}\n", (options.out / "tokenizer.model").native(),
             result.vocab_size, result.tokenizer_hash,
             options.tokenizer.empty()
                 ? fmt::format(", trained in {:.1f} s", result.training_seconds)
                 : "");
  fmt::print("{:.1f} MB of text in {:.1f} s ({:.1f} MB/s)\n", megabytes, result.encoding_seconds,
             megabytes / result.encoding_seconds);
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  options->threads = 0;  // resolved in run()
  Command command(app, "tokenize", "Turn text into token shards, training a tokenizer on the way");
  command
      .option("--input", options->source.inputs,
              "text or .jsonl files, also .gz .zst .xz .bz2, folders, or - for standard input")
      .required()
      .check(not_empty());
  command.option("--out", options->out, "folder for the shards and tokenizer.model")
      .required()
      .check(not_empty());
  command
      .option("--extensions", options->source.extensions,
              "which files of a folder to read, by the end of their names")
      .delimiter(',')
      .check(not_empty())
      .show_default();
  command
      .option("--separator", options->source.separator,
              "cut text files into documents at this text, e.g. '\\n\\n' or "
              "'<|endoftext|>' (default: a file is a document)")
      .check(not_empty());
  command.flag("--jsonl", options->source.jsonl,
               "read every input as JSON lines, whatever its name");
  command.option("--json-field", options->source.json_field, "the field with the text")
      .check(not_empty())
      .show_default();
  command.choice("--invalid-utf8", options->source.invalid_utf8,
                 {{"error", InvalidUtf8::error},
                  {"skip", InvalidUtf8::skip},
                  {"replace", InvalidUtf8::replace}},
                 "error: stop; skip: drop the document; replace: put U+FFFD (also for unpaired "
                 "surrogates in JSON)");
  command.choice("--bad-lines", options->source.bad_lines,
                 {{"error", BadLines::error}, {"skip", BadLines::skip}},
                 "JSON lines that are broken or have no text. error: stop; skip: leave them out");
  command
      .option("--tokenizer", options->tokenizer,
              "an existing SentencePiece model (default: train one on the input)")
      .check(not_empty());
  command.option("--vocab-size", options->training.vocab_size, "tokens to train")
      .check(integer_in(300, INT32_MAX))
      .show_default();
  command.option("--model-type", options->training.model_type, "kind of tokenizer to train")
      .check(one_of({"bpe", "unigram"}))
      .show_default();
  command
      .option("--character-coverage", options->training.character_coverage,
              "share of the characters that get tokens; the others stay bytes")
      .check(number_in({.low = 0.98, .high = 1}))  // what SentencePiece takes
      .show_default();
  command
      .option("--user-symbols", options->training.user_symbols,
              "texts that always are one token, e.g. '<|user|>'")
      .delimiter(',')
      .check(not_empty());
  command
      .option("--training-bytes", options->training_bytes, "text to train the tokenizer on, about")
      .check(integer_in(1))
      .show_default();
  command
      .option("--val-fraction", options->val_fraction,
              "share of the documents set aside for validation")
      .check(number_in({.low = 0, .high = 1, .below = true}))
      .show_default();
  command.option("--seed", options->seed, "chooses the validation documents")
      .check(any_seed())
      .show_default();
  command.flag("--no-eos", options->append_eos, "do not end documents with the EOS token", false);
  command.flag("--force", options->force, "replace the shards of an earlier run");
  command
      .option("--threads", options->threads, "0: all cores that the container's CPU quota allows")
      .check(integer_in(0, kMaxTokenizeThreads))
      .show_default();
  command.flag("--no-progress", options->progress, "no progress on stderr", false);
  command.example(
      "  rodimus tokenize --input docs/ --extensions .rst,.md --vocab-size 8192 --val-fraction "
      "0.02 "
      "--out data\n"
      "writes data/tokenizer.model and the shards data/train and data/val (Megatron-LM format).\n"
      "  rodimus tokenize --input more.jsonl --tokenizer data/tokenizer.model --out more\n"
      "encodes more text with the same tokenizer.");
  command.run([options] {
    require_single_process("tokenize");
    run(*options);
  });
}

}  // namespace rodimus
