#include "data/sentencepiece_model.h"

#include <cstring>

#include "base/error.h"

namespace rodimus {
namespace {

// A field of a message in the wire format of Protocol Buffers
// (protobuf.dev/programming-guides/encoding).
struct Field {
  uint64_t number = 0;
  uint64_t value = 0;      // of an integer
  std::string_view bytes;  // of everything else
};

std::vector<Field> fields_of(std::string_view message) {
  const auto take = [&message](uint64_t count) {
    if (count > message.size()) fail("a SentencePiece model ends within a field");
    const std::string_view taken = message.substr(0, count);
    message.remove_prefix(count);
    return taken;
  };
  const auto integer = [&take] {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1).front());
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) break;
    }
    return value;
  };
  std::vector<Field> fields;
  while (!message.empty()) {
    const uint64_t key = integer();
    Field field{.number = key >> 3, .value = 0, .bytes = {}};
    switch (key & 7) {
      case 0:
        field.value = integer();
        break;
      case 1:
        field.bytes = take(8);
        break;
      case 2:
        field.bytes = take(integer());
        break;
      case 5:
        field.bytes = take(4);
        break;
      default:
        fail("a SentencePiece model has a field of an unknown kind, ", key & 7);
    }
    fields.push_back(field);
  }
  return fields;
}

// Numbers and defaults below are those of SentencePiece's sentencepiece_model.proto.

SentencePieceModel::Piece read_piece(std::string_view message) {
  SentencePieceModel::Piece piece;
  for (const Field& field : fields_of(message)) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2 && field.bytes.size() == sizeof(float))
      std::memcpy(&piece.score, field.bytes.data(), sizeof(float));
    if (field.number == 3) piece.kind = static_cast<SentencePieceModel::Kind>(field.value);
  }
  return piece;
}

bool normalizer_changes_text(std::string_view message) {
  bool rules = false, adds_space = true, removes_spaces = true, marks_spaces = true;
  for (const Field& field : fields_of(message)) {
    if (field.number == 2) rules = !field.bytes.empty();
    if (field.number == 3) adds_space = field.value != 0;
    if (field.number == 4) removes_spaces = field.value != 0;
    if (field.number == 5) marks_spaces = field.value != 0;
  }
  return rules || adds_space || removes_spaces || !marks_spaces;
}

}  // namespace

SentencePieceModel read_sentencepiece_model(std::string_view serialized) {
  constexpr uint64_t kBpe = 2;
  SentencePieceModel model;
  for (const Field& field : fields_of(serialized)) {
    if (field.number == 1) model.pieces.push_back(read_piece(field.bytes));
    if (field.number == 2) {
      for (const Field& part : fields_of(field.bytes))
        if (part.number == 3) model.is_bpe = part.value == kBpe;
    }
    if (field.number == 3) model.changes_text = normalizer_changes_text(field.bytes);
  }
  return model;
}

}  // namespace rodimus
