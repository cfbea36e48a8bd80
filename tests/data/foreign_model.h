// A SentencePiece model trained with the defaults, as other projects do: NFKC, runs of spaces
// merged, a space before the text, and no newline.
#pragma once

#include <sentencepiece_trainer.h>

#include <filesystem>
#include <string>

#include "tests/support/temporary_folder.h"

namespace rodimus::testing {

// Trains on the lines of `text` and writes PREFIX.model.
inline void train_foreign_model(const std::filesystem::path& prefix, const std::string& text,
                                int vocab_size) {
  write_bytes(prefix.native() + ".txt", text);
  const auto status =
      sentencepiece::SentencePieceTrainer::Train({{"input", prefix.native() + ".txt"},
                                                  {"model_prefix", prefix.native()},
                                                  {"vocab_size", std::to_string(vocab_size)},
                                                  {"model_type", "bpe"},
                                                  {"minloglevel", "2"}});
  EXPECT_TRUE(status.ok()) << status.ToString();
}

}  // namespace rodimus::testing
