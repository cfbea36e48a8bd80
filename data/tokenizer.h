// SentencePiece tokenizer. Models trained here are lossless: no normalisation, no added or removed
// spaces, newline is a separate token, and whatever is not in the vocabulary falls back to bytes,
// so decode(encode(text)) == text for every valid UTF-8 text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace rodimus {

// The smallest vocabulary that `tokenize` accepts; it always includes 256 byte tokens, 2 special
// ones and the newline.
inline constexpr int64_t kLeastVocabulary = 300;

struct TokenizerTraining {
  int64_t vocab_size = 8192;           // includes the 2 special and 256 byte tokens
  std::string model_type = "bpe";      // or "unigram"
  double character_coverage = 0.9995;  // fraction of characters covered; rarer ones become bytes
  std::vector<std::string> user_symbols = {};  // always one token each, e.g. "<|user|>"
};

// Caches the tokens of words. Text repeats its words, so this makes encoding several times faster.
// Use one per thread and tokenizer; it grows to a few tens of MB at most.
class WordCache {
 public:
  const std::vector<int32_t>* find(std::string_view word) const;  // null if absent
  // Does nothing when full or if the word is too long.
  void insert(std::string_view word, std::vector<int32_t> ids);

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view word) const { return std::hash<std::string_view>()(word); }
  };
  std::unordered_map<std::string, std::vector<int32_t>, Hash, std::equal_to<>> words_;
};

class Tokenizer {
 public:
  // Throws Error when the file is missing or not a SentencePiece model. Any model is accepted; one
  // that normalises or adds a leading space does not round-trip.
  static Tokenizer load(const std::filesystem::path& file);
  static Tokenizer from_model(std::string serialized);

  // next_line(line) fills in one line of training text (no newline) and returns false at the end.
  // The result depends only on the lines and the options. Throws Error, e.g. when the text is too
  // small for vocab_size.
  static Tokenizer train(const TokenizerTraining& options,
                         const std::function<bool(std::string&)>& next_line);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  int64_t vocab_size() const;
  int32_t eos_id() const;            // -1 when the model has none
  const std::string& model() const;  // the serialized model, as in the file
  const std::string& hash() const;   // XXH64 of it, 16 hexadecimal digits
  // Whether encoding word by word gives the tokens of the whole text, and every character has some:
  // true of all models trained here.
  bool by_words() const;

  // Adds no EOS and recognises none in the text. Invalid UTF-8 becomes U+FFFD. Thread-safe when
  // each thread has its own cache; a cache changes the speed, not the result.
  std::vector<int32_t> encode(std::string_view text, WordCache* cache = nullptr) const;
  // Control tokens (EOS) decode to "". Throws Error on an id outside the vocabulary.
  std::string decode(const std::vector<int32_t>& ids) const;
  // The bytes of one token on its own; may be part of a character.
  const std::string& bytes_of(int32_t id) const;

 private:
  struct Model;
  explicit Tokenizer(std::unique_ptr<Model> model);
  std::unique_ptr<Model> model_;
};

// Decodes a growing sequence token by token, for text that is shown while it is generated: a
// character is returned once all its bytes have arrived, and invalid bytes become U+FFFD.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int32_t id);
  std::string finish();  // the rest of an incomplete character

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
};

}  // namespace rodimus
