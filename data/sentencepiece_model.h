// What a serialized SentencePiece model says and the library's interface does not tell.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rodimus {

struct SentencePieceModel {
  enum class Kind : uint8_t { normal = 1, unknown, control, user_defined, unused, byte };
  struct Piece {
    std::string text;  // with SentencePiece's mark for spaces
    float score = 0;
    Kind kind = Kind::normal;
  };

  std::vector<Piece> pieces;  // by id
  bool is_bpe = false;        // else unigram, words or characters
  // Whether it changes text before it cuts it: normalises characters, adds or removes spaces.
  bool changes_text = true;
};

// Throws Error when `serialized` is not in the format of Protocol Buffers. The library must have
// accepted it: this function does not check that the model makes sense.
SentencePieceModel read_sentencepiece_model(std::string_view serialized);

}  // namespace rodimus
