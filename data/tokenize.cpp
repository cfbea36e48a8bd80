#include "data/tokenize.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/progress.h"
#include "data/round_trip.h"
#include "data/shard_writer.h"
#include "data/utf8.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kTrainingStream = 2;

void check_options(const TokenizeOptions& options) {
  if (options.threads < 1 || options.threads > kMaxTokenizeThreads) {
    fail("--threads ", options.threads, " must be in [1, ", kMaxTokenizeThreads, "]");
  }
  if (!(options.val_fraction >= 0 && options.val_fraction < 1)) {
    fail("--val-fraction ", options.val_fraction, " must be at least 0 and below 1");
  }
  if (options.training.model_type != "bpe" && options.training.model_type != "unigram") {
    fail("--model-type ", options.training.model_type, " is neither bpe nor unigram");
  }
  if (options.tokenizer.empty() && options.training.vocab_size < kLeastVocabulary) {
    fail("--vocab-size ", options.training.vocab_size,
         " is too small: 256 byte tokens and the special ones come first, use ", kLeastVocabulary,
         " or more");
  }
  for (const std::string& input : options.source.inputs) {
    std::error_code ignored;
    if (options.tokenizer.empty() && (input == "-" || fs::is_fifo(input, ignored))) {
      fail("input ", input, " can be read only once, but training a tokenizer reads it first; ",
           "give an existing --tokenizer or put the text into a file");
    }
  }
}

void prepare_folder(const TokenizeOptions& options) {
  std::error_code error;
  fs::create_directories(options.out, error);
  if (error) fail("cannot create folder ", options.out.native(), ": ", error.message());
  for (const char* name : {"train.bin", "train.idx", "val.bin", "val.idx", "tokenizer.model"}) {
    const fs::path file = options.out / name;
    if (options.force || !fs::exists(file, error)) continue;
    // The tokenizer in the output folder may be the one to use.
    if (file.filename() == "tokenizer.model" && fs::equivalent(file, options.tokenizer, error)) {
      continue;
    }
    fail(file.native(), " exists; choose another --out, or --force to replace it");
  }
}

// The end of the line that begins at `begin`, or of a part of it if it is very long: a text may be
// a single line, and sampling must not take all or nothing.
size_t sampled_end(const std::string& text, size_t begin) {
  constexpr size_t kMostBytes = size_t{16} << 10;
  size_t end = std::min(text.find('\n', begin), text.size());
  if (end - begin <= kMostBytes) return end;
  end = begin + kMostBytes;
  while ((static_cast<uint8_t>(text[end]) & 0xc0) == 0x80) --end;
  return end;
}

// What the options excluded, for the error message when nothing is left.
std::string left_out(const TextSource& source) {
  std::string text;
  if (source.bad_lines().count > 0) {
    text += concat("; ", source.bad_lines().count,
                   " bad lines left out: ", source.bad_lines().first.front());
  }
  if (source.skipped() > 0) {
    text += concat("; ", source.skipped(),
                   " documents of invalid UTF-8 left out: ", source.invalid_utf8().first.front());
  }
  return text;
}

// Trains on about training_bytes of text: lines drawn evenly from the documents outside val.
Tokenizer train_tokenizer(const TokenizeOptions& options) {
  TextSource source(options.source);
  const double share =
      static_cast<double>(options.training_bytes) / std::max(source.unpacked_bytes(), 1.0);
  ValidationSplit split(source, options.val_fraction, options.seed);
  Progress progress("tokenizer: reading", source.total_bytes(), options.progress);
  Document document;
  // Start of the next line of `document`; npos: read the next document.
  size_t begin = std::string::npos;
  uint64_t line_number = 0;
  const auto next_line = [&](std::string& line) {
    do {
      while (begin == std::string::npos) {
        bool in_val = false;
        if (!split.next(document, in_val)) {
          const std::string nothing = split.given() == 0 ? left_out(source) : "";
          if (!nothing.empty()) fail("no text to train the tokenizer on", nothing);
          progress.finish("tokenizer: training on what was read ...");
          return false;
        }
        progress.update(source.bytes_read());
        if (!in_val) begin = 0;
      }
      const size_t end = sampled_end(document.text, begin);
      line.assign(document.text, begin, end - begin);
      const bool is_last = end == document.text.size();
      begin = is_last ? std::string::npos : end + (document.text[end] == '\n' ? 1 : 0);
    } while (unit_hash(options.seed, line_number++, kTrainingStream) >= share);
    return true;
  };
  return Tokenizer::train(options.training, next_line);
}

struct Encoded {
  Document document;
  bool in_val = false;
  std::vector<int32_t> tokens;
  bool lossless = true;  // tokens decode to the text
};

// Encodes documents with one thread per cache; each free thread takes the next document.
void encode_all(const Tokenizer& tokenizer, std::vector<Encoded>& round, bool append_eos,
                std::vector<WordCache>& caches) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::exception_ptr exception;
  const auto work = [&](WordCache* cache) {
    try {
      for (size_t i; (i = next.fetch_add(1)) < round.size();) {
        const std::string& text = round[i].document.text;
        round[i].tokens = tokenizer.encode(text, cache);
        round[i].lossless = tokenizer.decode(round[i].tokens) == text;
        if (append_eos) round[i].tokens.push_back(tokenizer.eos_id());
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      exception = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> pool;
    try {
      for (size_t t = 1; t < caches.size(); ++t) pool.emplace_back(work, &caches[t]);
    } catch (const std::system_error&) {  // no more threads available: the running ones do the work
    }
    work(&caches[0]);
  }
  if (exception) std::rethrow_exception(exception);
}

// Text encoded between two writes: enough to keep all threads busy, small enough to keep in memory.
constexpr size_t kRoundBytesPerThread = size_t{4} << 20;

}  // namespace

TokenizeResult tokenize(const TokenizeOptions& options) {
  check_options(options);
  prepare_folder(options);
  std::vector<WordCache> caches(static_cast<size_t>(options.threads));

  TokenizeResult result;
  TextSource source(options.source);  // before training, so that a wrong input fails at once
  const auto training_begin = Clock::now();
  const Tokenizer tokenizer =
      options.tokenizer.empty() ? train_tokenizer(options) : Tokenizer::load(options.tokenizer);
  result.training_seconds = seconds_since(training_begin);
  result.vocab_size = tokenizer.vocab_size();
  result.tokenizer_hash = tokenizer.hash();
  if (options.append_eos && tokenizer.eos_id() < 0) {
    fail(options.tokenizer.native(), " has no end-of-text token; use --no-eos or another model");
  }

  const ShardInfo info{.tokenizer_hash = tokenizer.hash(),
                       .vocab_size = tokenizer.vocab_size(),
                       .eos_id = options.append_eos ? tokenizer.eos_id() : -1};
  AtomicFile model(options.out / "tokenizer.model");
  ShardWriter train(options.out / "train", info);
  std::optional<ShardWriter> val;
  if (options.val_fraction > 0) val.emplace(options.out / "val", info);

  const auto encoding_begin = Clock::now();
  Progress progress("tokenizing", source.total_bytes(), options.progress);
  ValidationSplit split(source, options.val_fraction, options.seed);
  std::vector<Encoded> round;
  for (bool more = true; more;) {
    round.clear();
    size_t bytes = 0;
    while (bytes < kRoundBytesPerThread * caches.size()) {
      Encoded encoded;
      more = split.next(encoded.document, encoded.in_val);
      if (!more) break;
      bytes += encoded.document.text.size();
      round.push_back(std::move(encoded));
    }
    encode_all(tokenizer, round, options.append_eos, caches);
    for (const Encoded& encoded : round) {
      if (encoded.tokens.empty()) continue;
      const std::string& text = encoded.document.text;
      if (!encoded.lossless && result.changed_documents++ == 0) {
        result.change = describe_change(text, tokenizer.decode(encoded.tokens));
      }
      (encoded.in_val ? *val : train)
          .add_document(encoded.tokens, static_cast<int64_t>(text.size()), count_words(text),
                        encoded.lossless);
    }
    progress.update(source.bytes_read());
  }
  progress.finish("");
  const int64_t documents = train.info().documents + (val ? val->info().documents : 0);
  result.skipped_documents = source.skipped();
  result.repaired_documents = source.replaced();
  result.invalid_utf8 = source.invalid_utf8();
  result.bad_lines = source.bad_lines();
  result.cut = split.cut();
  if (documents == 0) {
    fail("no documents in the input: ", source.files(), " file(s), all empty or skipped",
         left_out(source));
  }
  if (train.info().documents == 0 || (val && val->info().documents == 0)) {
    fail("of ", documents, " document(s) none went to ",
         train.info().documents == 0 ? "train" : "val",
         "; cut the text into more documents (--separator), or change --val-fraction (0: no val)");
  }

  model.write(tokenizer.model());
  model.close();
  train.close();
  if (val) val->close();
  // Everything is on disk; only renames follow.
  model.publish();
  train.publish();
  if (val) {
    val->publish();
  } else {  // a val from an earlier run belongs to another tokenizer
    for (const char* name : {"val.idx", "val.bin", "val.json"}) fs::remove(options.out / name);
  }
  result.train = train.info();
  if (val) result.val = val->info();
  result.encoding_seconds = seconds_since(encoding_begin);
  return result;
}

}  // namespace rodimus
