#include "data/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "base/checksum.h"
#include "base/error.h"
#include "data/mapped_file.h"
#include "data/sentencepiece_model.h"
#include "data/utf8.h"

namespace rodimus {
namespace {

// SentencePiece represents a space by this character (U+2581), so the character itself needs care.
constexpr std::string_view kMeta = "\xe2\x96\x81";
// Longer words are rare; caching them would waste memory.
constexpr size_t kMaxCachedBytes = 48;
constexpr size_t kMaxCachedWords = size_t{1} << 17;

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at; (at = text.find(from)) != std::string_view::npos;) {
    out.append(text.substr(0, at)).append(to);
    text.remove_prefix(at + from.size());
  }
  return out.append(text);
}

// Whether a token spans a place where first_word() cuts.
bool crosses_words(std::string_view bytes) {
  if (bytes.find('\n') != std::string_view::npos) return bytes != "\n";
  const size_t word = bytes.find_first_not_of(' ');
  return word != std::string_view::npos && bytes.find(' ', word) != std::string_view::npos;
}

// The first word of `text`: a newline, or spaces and what follows them up to the next space or
// newline.
std::string_view first_word(std::string_view text) {
  if (text.starts_with('\n')) return text.substr(0, 1);
  const size_t begin = text.find_first_not_of(' ');
  if (begin == std::string_view::npos) return text;
  return text.substr(0, text.find_first_of(" \n", begin));
}

}  // namespace

struct Tokenizer::Model {
  sentencepiece::SentencePieceProcessor processor;
  std::string serialized, hash;
  std::vector<std::string> bytes;       // what each id decodes to
  std::array<int32_t, 256> byte_ids{};  // ids of the byte-fallback tokens
  bool leading_space = false;           // the model puts a space before the text
  // True if the model leaves text as it is, no token crosses a word boundary and every character
  // can fall back to bytes: encoding word by word then gives the same result as encoding the whole
  // text.
  bool by_words = false;

  void append(std::string_view text, std::vector<int32_t>& ids) const {
    std::vector<int> part;
    const auto status = processor.Encode({text.data(), text.size()}, &part);
    if (!status.ok()) fail("SentencePiece cannot encode: ", status.ToString());
    ids.insert(ids.end(), part.begin(), part.end());
  }
};

Tokenizer::Tokenizer(std::unique_ptr<Model> model) : model_(std::move(model)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  try {
    return from_model(
        std::string(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()));
  } catch (const Error& error) {
    fail(file.native(), ": ", error.what());
  }
}

Tokenizer Tokenizer::from_model(std::string serialized) {
  auto model = std::make_unique<Model>();
  auto& processor = model->processor;
  const auto status = processor.LoadFromSerializedProto({serialized.data(), serialized.size()});
  if (!status.ok()) fail("not a SentencePiece model (", status.ToString(), ")");
  model->hash = hex64(xxh64(serialized));
  model->serialized = std::move(serialized);
  int bytes_found = 0;
  bool crossing = false;
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    const std::string& piece = processor.IdToPiece(id);
    if (processor.IsByte(id)) {  // "<0x0A>"
      int value = 0;
      std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
      model->byte_ids[static_cast<size_t>(value)] = id;
      model->bytes.emplace_back(1, static_cast<char>(value));
      ++bytes_found;
    } else if (processor.IsUnknown(id)) {
      model->bytes.emplace_back("\xef\xbf\xbd");
    } else if (processor.IsControl(id)) {
      model->bytes.emplace_back();
    } else {
      model->bytes.push_back(replace_all(piece, kMeta, " "));
      crossing = crossing || crosses_words(model->bytes.back());
    }
  }
  std::vector<int32_t> probe;
  model->append("a", probe);
  model->leading_space =
      !probe.empty() && model->bytes[static_cast<size_t>(probe.front())].starts_with(' ');
  model->by_words =
      bytes_found == 256 && !crossing && !read_sentencepiece_model(model->serialized).changes_text;
  return Tokenizer(std::move(model));
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(model_->bytes.size()); }
int32_t Tokenizer::eos_id() const { return model_->processor.eos_id(); }
const std::string& Tokenizer::model() const { return model_->serialized; }
const std::string& Tokenizer::hash() const { return model_->hash; }
bool Tokenizer::by_words() const { return model_->by_words; }

std::vector<int32_t> Tokenizer::encode(std::string_view text, WordCache* cache) const {
  std::vector<int32_t> ids;
  if (!model_->by_words) {
    model_->append(text, ids);
    return ids;
  }
  ids.reserve(text.size() / 3);
  while (!text.empty()) {
    std::string_view word = first_word(text);
    text.remove_prefix(word.size());
    if (const auto* known = cache ? cache->find(word) : nullptr) {
      ids.insert(ids.end(), known->begin(), known->end());
      continue;
    }
    const size_t begin = ids.size();
    std::string_view rest = word;
    for (size_t at; (at = rest.find(kMeta)) != std::string_view::npos;) {
      model_->append(rest.substr(0, at), ids);
      for (const char c : kMeta) ids.push_back(model_->byte_ids[static_cast<uint8_t>(c)]);
      rest.remove_prefix(at + kMeta.size());
    }
    model_->append(rest, ids);
    if (cache) cache->insert(word, {ids.begin() + static_cast<ptrdiff_t>(begin), ids.end()});
  }
  return ids;
}

const std::vector<int32_t>* WordCache::find(std::string_view word) const {
  const auto found = words_.find(word);
  return found == words_.end() ? nullptr : &found->second;
}

void WordCache::insert(std::string_view word, std::vector<int32_t> ids) {
  if (word.size() > kMaxCachedBytes || words_.size() >= kMaxCachedWords) return;
  words_.emplace(word, std::move(ids));
}

const std::string& Tokenizer::bytes_of(int32_t id) const {
  if (id < 0 || id >= vocab_size()) {
    fail("token ", id, " is outside the tokenizer's vocabulary of ", vocab_size());
  }
  return model_->bytes[static_cast<size_t>(id)];
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (const int32_t id : ids) text += bytes_of(id);
  if (model_->leading_space && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

std::string StreamDecoder::push(int32_t id) {
  pending_ += tokenizer_.bytes_of(id);
  // Only the last character can be incomplete, with at most three bytes.
  size_t complete = pending_.size();
  for (size_t back = 1; back <= std::min<size_t>(3, pending_.size()); ++back) {
    if (utf8_length(std::string_view(pending_).substr(pending_.size() - back)) == kIncomplete) {
      complete = pending_.size() - back;
    }
  }
  const std::string out = replace_invalid_utf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return out;
}

std::string StreamDecoder::finish() { return replace_invalid_utf8(std::exchange(pending_, {})); }

}  // namespace rodimus
