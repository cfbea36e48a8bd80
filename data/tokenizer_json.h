// The tokenizer for programs that use Hugging Face's libraries.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/tokenizer.h"

namespace rodimus {

// The text of a tokenizer.json, as the library `tokenizers` (0.20 or later) reads it. It encodes
// and decodes as `tokenizer` does: the names of special tokens in a text are ordinary characters.
// When special tokens are asked for, the token `begin` is put before a text (-1: none). Nothing if
// the file cannot say what the tokenizer does: one that normalises text, adds a space before it,
// has tokens across words, or lacks byte tokens; and a unigram model, where two ways to cut a word
// are often equally likely and SentencePiece's rounding decides.
std::optional<std::string> format_tokenizer_json(const Tokenizer& tokenizer, int32_t begin);

// The text of a tokenizer_config.json, with which transformers opens that file.
std::string format_tokenizer_config(const Tokenizer& tokenizer, int32_t begin);

}  // namespace rodimus
