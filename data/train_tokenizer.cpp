// Tokenizer::train: feeds SentencePiece's trainer in such a way that it ignores no character of the
// text.
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "data/tokenizer.h"

namespace rodimus {
namespace {

// SentencePiece skips training lines longer than this; we cut them instead.
constexpr size_t kMaxLineBytes = 4096;
// SentencePiece's symbol for a space. In the text itself it is an ordinary character and becomes
// bytes.
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";
// SentencePiece skips every line that contains this character (U+2585), which it uses internally.
constexpr std::string_view kUnknownMark = "\xe2\x96\x85";

// Feeds lines to the trainer in parts: long lines are cut between characters, and all lines are cut
// at characters that have a special meaning in SentencePiece.
class LineIterator : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(const std::function<bool(std::string&)>& next_line)
      : next_line_(next_line) {
    Next();
    empty_ = last_given_;
  }
  bool empty() const { return empty_; }  // no line contained text
  bool done() const override { return done_; }
  void Next() override {
    do {
      while (offset_ >= line_.size()) {
        offset_ = 0;
        if (!next_line_(line_)) {
          // The trainer aborts the process if a required character never occurs: give it one space.
          done_ = std::exchange(last_given_, true);
          line_.clear();
          part_.assign(1, ' ');
          return;
        }
      }
      const size_t mark =
          std::min(line_.find(kSpaceMark, offset_), line_.find(kUnknownMark, offset_));
      size_t end = std::min({line_.size(), mark, offset_ + kMaxLineBytes});
      while (end < line_.size() && (static_cast<uint8_t>(line_[end]) & 0xc0) == 0x80) --end;
      part_ = line_.substr(offset_, end - offset_);
      offset_ = end == mark ? end + kSpaceMark.size() : end;
    } while (part_.empty());
  }
  const std::string& value() const override { return part_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::function<bool(std::string&)>& next_line_;
  std::string line_, part_;
  size_t offset_ = 0;
  bool last_given_ = false, done_ = false, empty_ = false;
};

// The integer that follows `label` in `text`; 0 if there is none.
int64_t number_after(std::string_view text, std::string_view label) {
  const size_t at = text.find(label);
  int64_t number = 0;
  if (at != std::string_view::npos) {
    text.remove_prefix(at + label.size());
    std::from_chars(text.data(), text.data() + text.size(), number);
  }
  return number;
}

// What to do about an error of SentencePiece, by its cause; "" if the cause is unknown.
std::string advice(const TokenizerTraining& options, std::string_view refusal) {
  if (refusal.find("smaller than required_chars") != std::string_view::npos) {
    return concat("the characters of the text, 256 byte tokens and the special ones need ",
                  number_after(refusal, " vs "), ": raise --vocab-size to that or more, or lower ",
                  "--character-coverage (", options.character_coverage, " now)");
  }
  if (refusal.find("Vocabulary size too high") != std::string_view::npos) {
    const int64_t most = number_after(refusal, "<= ");
    if (most < kLeastVocabulary) {
      return concat("there is too little text for any (the minimum is ", kLeastVocabulary,
                    "): add text");
    }
    return concat("this little text supports at most ", most,
                  ": lower the vocabulary size (--vocab-size) to that, or add text");
  }
  return "";
}

}  // namespace

Tokenizer Tokenizer::train(const TokenizerTraining& options,
                           const std::function<bool(std::string&)>& next_line) {
  std::string symbols = "\n";
  for (const std::string& symbol : options.user_symbols) {
    if (symbol.empty() || symbol.find_first_of(" ,\"\n") != std::string::npos ||
        symbol.find(kSpaceMark) != std::string::npos) {
      fail("tokenizer symbol '", symbol,
           "' is empty or has a space, comma, quote, newline or U+2581");
    }
    symbols += "," + symbol;
  }
  LineIterator lines(next_line);
  if (lines.empty()) {
    fail("no text to train the tokenizer on: nothing but empty lines, or all set aside for val");
  }
  std::string serialized;
  // num_threads is written into the model and affects unigram's sums: a constant makes the model
  // depend on the text alone.
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      {{"vocab_size", std::to_string(options.vocab_size)},
       {"model_type", options.model_type},
       {"character_coverage", std::to_string(options.character_coverage)},
       // Without its own piece, a space would become the bytes of U+2581. Every other character,
       // even the tab, can fall back to bytes.
       {"required_chars", std::string(kSpaceMark)},
       {"user_defined_symbols", symbols},
       {"byte_fallback", "true"},
       {"normalization_rule_name", "identity"},
       {"add_dummy_prefix", "false"},
       {"remove_extra_whitespaces", "false"},
       {"allow_whitespace_only_pieces", "true"},
       {"split_digits", "true"},
       {"max_sentence_length", std::to_string(kMaxLineBytes)},
       {"unk_id", "0"},
       {"eos_id", "1"},
       {"bos_id", "-1"},
       {"pad_id", "-1"},
       {"num_threads", "8"},
       {"minloglevel", "2"}},
      &lines, &serialized);
  if (!status.ok()) {
    const std::string what = advice(options, status.ToString());
    fail("cannot train a ", options.model_type, " tokenizer of ", options.vocab_size, " tokens",
         what.empty() ? "" : "; ", what, " (SentencePiece: ", status.ToString(), ")");
  }
  return from_model(std::move(serialized));
}

}  // namespace rodimus
