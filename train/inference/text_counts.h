// The size of the text behind a dataset's tokens, for figures that are comparable across
// tokenizers.
#pragma once

#include <cstdint>

#include "data/dataset.h"
#include "data/tokenizer.h"

namespace rodimus {

struct TextCounts {
  // Of the original text of all shards, from their NAME.json; -1: at least one does not record it.
  int64_t bytes = -1, words = -1;
  // Whether the bytes of the tokens are those of the original text.
  bool lossless = false;
};

// `tokenizer` may be null. If the shards do not record whether it is lossless, it is tried on a
// text that normalising tokenizers change.
TextCounts text_counts(const Dataset& data, const Tokenizer* tokenizer);

}  // namespace rodimus
