#include "train/inference/text_counts.h"

#include <algorithm>
#include <string>

namespace rodimus {
namespace {

// Tries spaces at both ends and in a row, line ends, and characters that NFC and NFKC replace.
bool keeps_text(const Tokenizer& tokenizer) {
  const std::string text =
      "  Two  spaces\tand\r\n\nlines \xef\xac\x81 \xc2\xbd \xe2\x84\xab e\xcc\x81 \xef\xbd\x81 "
      "\xe3\x80\x80 ";
  return tokenizer.decode(tokenizer.encode(text)) == text;
}

}  // namespace

TextCounts text_counts(const Dataset& data, const Tokenizer* tokenizer) {
  TextCounts counts{.bytes = 0, .words = 0, .lossless = tokenizer != nullptr};
  bool unknown = false;
  for (const Shard& shard : data.shards()) {
    const auto& info = shard.info();
    // 0 bytes for a positive number of tokens: written by a program that did not have the text.
    const bool has_bytes = info && (info->text_bytes > 0 || info->tokens == 0);
    const bool has_words = has_bytes && info->text_words >= 0;
    counts.bytes = has_bytes && counts.bytes >= 0 ? counts.bytes + info->text_bytes : -1;
    counts.words = has_words && counts.words >= 0 ? counts.words + info->text_words : -1;
    if (!info || !info->lossless) {
      unknown = true;
    } else if (!*info->lossless) {
      counts.lossless = false;
    }
  }
  if (counts.lossless && unknown) counts.lossless = keeps_text(*tokenizer);
  return counts;
}

}  // namespace rodimus
