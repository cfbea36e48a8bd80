#include "data/tokenizer_json.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "data/utf8.h"

namespace rodimus {
namespace {

using Json = nlohmann::json;

// A field of a message in the wire format of Protocol Buffers, in which SentencePiece stores its
// models (protobuf.dev/programming-guides/encoding).
struct Field {
  uint64_t number = 0;
  uint64_t value = 0;      // of an integer
  std::string_view bytes;  // of everything else
};

std::vector<Field> fields_of(std::string_view message) {
  const auto take = [&message](uint64_t count) {
    CHECK(count <= message.size(), "a SentencePiece model ends within a field");
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

// Numbers from SentencePiece's sentencepiece_model.proto.
enum class Kind : uint8_t { normal = 1, unknown, control, user_defined, unused, byte };
constexpr uint64_t kUnigram = 1, kBpe = 2;

struct Piece {
  std::string text;  // with spaces
  float score = 0;
  Kind kind = Kind::normal;
};

struct Vocabulary {
  std::vector<Piece> pieces;  // by id
  uint64_t type = kUnigram;
};

Vocabulary read(const Tokenizer& tokenizer) {
  Vocabulary vocabulary;
  for (const Field& field : fields_of(tokenizer.model())) {
    if (field.number == 1) {
      Piece piece;
      for (const Field& part : fields_of(field.bytes)) {
        if (part.number == 1) piece.text = part.bytes;
        if (part.number == 2) std::memcpy(&piece.score, part.bytes.data(), sizeof(float));
        if (part.number == 3) piece.kind = static_cast<Kind>(part.value);
      }
      // Spaces as themselves: SentencePiece's mark for them is an ordinary character in a text.
      const auto id = static_cast<int32_t>(vocabulary.pieces.size());
      if (piece.kind == Kind::normal) piece.text = tokenizer.bytes_of(id);
      vocabulary.pieces.push_back(piece);
    }
    if (field.number == 2) {
      for (const Field& part : fields_of(field.bytes))
        if (part.number == 3) vocabulary.type = part.value;
    }
  }
  return vocabulary;
}

// SentencePiece joins the two neighbours that make the piece of the highest score, whatever they
// are; this format lists the pairs, the first ones joined first.
Json bpe(const std::vector<Piece>& pieces) {
  Json vocabulary = Json::object(), merges = Json::array();
  std::set<std::string_view> normal;
  std::vector<const Piece*> order;
  for (size_t id = 0; id < pieces.size(); ++id) {
    vocabulary[pieces[id].text] = id;
    if (pieces[id].kind != Kind::normal) continue;
    normal.insert(pieces[id].text);
    order.push_back(&pieces[id]);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const Piece* a, const Piece* b) { return a->score > b->score; });
  for (const Piece* piece : order) {
    const std::string_view text = piece->text;
    for (size_t cut = utf8_length(text); cut < text.size(); cut += utf8_length(text.substr(cut))) {
      const std::string_view left = text.substr(0, cut), right = text.substr(cut);
      if (normal.contains(left) && normal.contains(right)) merges.push_back({left, right});
    }
  }
  return {{"type", "BPE"},         {"dropout", nullptr},
          {"unk_token", nullptr},  {"continuing_subword_prefix", nullptr},
          {"fuse_unk", false},     {"end_of_word_suffix", nullptr},
          {"byte_fallback", true}, {"ignore_merges", false},
          {"vocab", vocabulary},   {"merges", merges}};
}

}  // namespace

std::optional<std::string> format_tokenizer_json(const Tokenizer& tokenizer, int32_t begin) {
  if (!tokenizer.by_words()) return {};
  const Vocabulary vocabulary = read(tokenizer);
  if (vocabulary.type != kBpe) return {};
  Json added = Json::array();
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const Piece& piece = vocabulary.pieces[id];
    if (piece.kind == Kind::unused) return {};
    if (piece.kind != Kind::user_defined) continue;
    added.push_back({{"id", id},
                     {"content", piece.text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", false}});
  }
  Json before;
  if (begin >= 0) {
    const std::string& name = vocabulary.pieces.at(static_cast<size_t>(begin)).text;
    const Json special{{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
    const Json first{{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
    const Json second{{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
    before = {
        {"type", "TemplateProcessing"},
        {"single", {special, first}},
        {"pair", {special, first, special, second}},
        {"special_tokens",
         {{name, {{"id", name}, {"ids", Json::array({begin})}, {"tokens", Json::array({name})}}}}}};
  }
  const Json json{
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      // Words, as Tokenizer::encode() cuts them.
      {"pre_tokenizer",
       {{"type", "Split"},
        {"pattern", {{"Regex", "\\n| *[^ \\n]+| +"}}},
        {"behavior", "Isolated"},
        {"invert", false}}},
      {"post_processor", before},
      {"decoder",
       {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}},
      {"model", bpe(vocabulary.pieces)}};
  return to_text(json, 1) + "\n";
}

std::string format_tokenizer_config(const Tokenizer& tokenizer, int32_t begin) {
  const Vocabulary vocabulary = read(tokenizer);
  const auto name = [&](int32_t id) -> Json {
    return id < 0 ? Json() : Json(vocabulary.pieces.at(static_cast<size_t>(id)).text);
  };
  const Json json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                  {"bos_token", name(begin)},
                  {"eos_token", name(tokenizer.eos_id())},
                  {"pad_token", name(tokenizer.eos_id())},
                  {"clean_up_tokenization_spaces", false},
                  // Their names in a text are text, as in training.
                  {"split_special_tokens", true}};
  return to_text(json, 2) + "\n";
}

}  // namespace rodimus
