#include "data/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "data/sentencepiece_model.h"
#include "data/utf8.h"

namespace rodimus {
namespace {

using Json = nlohmann::json;

using Kind = SentencePieceModel::Kind;

// Spaces as themselves: SentencePiece's mark for them is an ordinary character in a text.
SentencePieceModel with_spaces(const Tokenizer& tokenizer) {
  SentencePieceModel model = read_sentencepiece_model(tokenizer.model());
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    auto& [text, score, kind] = model.pieces[id];
    if (kind == Kind::normal) text = tokenizer.bytes_of(static_cast<int32_t>(id));
  }
  return model;
}

// SentencePiece joins the two neighbours that make the piece of the highest score, whatever they
// are; this format lists the pairs, the first ones joined first.
Json bpe(const std::vector<SentencePieceModel::Piece>& pieces) {
  Json vocabulary = Json::object(), merges = Json::array();
  std::set<std::string_view> normal;
  std::vector<const SentencePieceModel::Piece*> order;
  for (size_t id = 0; id < pieces.size(); ++id) {
    vocabulary[pieces[id].text] = id;
    if (pieces[id].kind != Kind::normal) continue;
    normal.insert(pieces[id].text);
    order.push_back(&pieces[id]);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return a->score > b->score; });
  for (const auto* piece : order) {
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
  const SentencePieceModel model = with_spaces(tokenizer);
  if (!model.is_bpe) return {};
  Json added = Json::array();
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& piece = model.pieces[id];
    if (piece.kind == Kind::unused) return {};
    if (piece.kind != Kind::user_defined) continue;
    if (piece.text != tokenizer.bytes_of(static_cast<int32_t>(id))) return {};  // has that mark
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
    const std::string& name = model.pieces.at(static_cast<size_t>(begin)).text;
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
      {"model", bpe(model.pieces)}};
  return to_text(json, 1) + "\n";
}

std::string format_tokenizer_config(const Tokenizer& tokenizer, int32_t begin) {
  const SentencePieceModel model = with_spaces(tokenizer);
  const auto name = [&](int32_t id) -> Json {
    return id < 0 ? Json() : Json(model.pieces.at(static_cast<size_t>(id)).text);
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
