// The text behind the tokens of a dataset, for figures that compare across tokenizers.
#pragma once

#include <cstdint>

#include "data/dataset.h"
#include "data/tokenizer.h"

namespace rodimus {

struct TextCounts {
  // Of the original text of all shards, out of their NAME.json; -1: at least one does not tell.
  int64_t bytes = -1, words = -1;
  // The bytes that tokens stand for are those of the original text.
  bool lossless = false;
};

// `tokenizer` may be null. Where the shards do not say whether it is lossless, it is tried on a
// text that normalising tokenizers change.
TextCounts text_counts(const Dataset& data, const Tokenizer* tokenizer);

}  // namespace rodimus
