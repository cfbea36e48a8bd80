#include "data/shard.h"

#include <algorithm>
#include <set>

#include "base/checksum.h"
#include "base/error.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

bool present(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

fs::path with_suffix(const fs::path& prefix, const char* suffix) {
  return prefix.native() + suffix;  // not replace_extension(): a prefix may contain dots
}

// NAME for NAME.bin and NAME.idx.
fs::path prefix_of(const fs::path& path) {
  const fs::path extension = path.extension();
  if (extension != ".bin" && extension != ".idx") return path;
  return path.parent_path() / path.stem();
}

// The largest token as an unsigned number (a negative int32 becomes huge), in one vectorised pass.
template <class T>
uint32_t copy_and_max(const T* in, int64_t count, int32_t* out) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<int32_t>(in[i]);
    largest = std::max(largest, static_cast<uint32_t>(in[i]));
  }
  return largest;
}

template <class F>
auto with_tokens(TokenType type, const std::byte* data, F&& f) {
  if (type == TokenType::u16) return f(reinterpret_cast<const uint16_t*>(data));
  return f(reinterpret_cast<const uint32_t*>(data));  // int32: negative values become huge
}

}  // namespace

void require_digest(const MappedFile& file, uint64_t got, uint64_t expected) {
  if (got == expected) return;
  fail(file.path().native(), ": XXH64 is ", hex64(got), ", ", hex64(expected),
       " was recorded when it was written; the file has changed or is damaged: copy it or tokenize "
       "again");
}

Shard::Shard(const fs::path& path, std::optional<int32_t> document_delimiter)
    : Shard(path, document_delimiter, Unchecked{}) {
  check_structure();
}

Shard Shard::open_unchecked(const fs::path& path, std::optional<int32_t> document_delimiter) {
  return Shard(path, document_delimiter, Unchecked{});
}

void Shard::check_structure() const {
  if (index_) index_->check(idx_->path().native());
}

Shard::Shard(const fs::path& path, std::optional<int32_t> document_delimiter, Unchecked)
    : bin_(with_suffix(prefix_of(path), ".bin")) {
  const fs::path prefix = prefix_of(path), idx = with_suffix(prefix, ".idx");
  if (present(idx)) {
    idx_.emplace(idx);
    index_ = MegatronIndex::parse_header(idx_->bytes(), bin_.bytes().size(), idx.native());
    type_ = index_->token_type();
    tokens_ = index_->tokens();
    data_ = bin_.bytes().data();
    info_ = read_shard_info(with_suffix(prefix, ".json"));
    if (info_ && (info_->tokens != tokens_ || info_->documents != documents())) {
      fail(prefix.native(), ".json describes ", info_->documents, " documents and ", info_->tokens,
           " tokens, the index has ", documents(), " and ", tokens_,
           "; they are not from the same run: tokenize again");
    }
    return;
  }
  if (!LlmcHeader::has_magic(bin_.bytes())) {
    fail(bin_.path().native(), ": ", idx.filename().native(),
         " is missing, and without it the file would have to be an llm.c shard, which it is not");
  }
  const LlmcHeader header = LlmcHeader::parse(bin_.bytes(), bin_.path().native());
  type_ = header.token_type;
  tokens_ = header.tokens;
  data_ = bin_.bytes().data() + LlmcHeader::kBytes;
  begins_.push_back(0);
  if (document_delimiter) {
    const auto delimiter = static_cast<uint32_t>(*document_delimiter);
    with_tokens(type_, data_, [&](const auto* in) {
      for (int64_t i = 1; i < tokens_; ++i) {
        if (in[i] == delimiter) begins_.push_back(i);
      }
    });
  }
  begins_.push_back(tokens_);
}

int64_t Shard::documents() const {
  return index_ ? index_->documents() : static_cast<int64_t>(begins_.size()) - 1;
}

int64_t Shard::document_begin(int64_t d) const {
  CHECK(d >= 0 && d <= documents(), "Shard: document ", d, " of ", documents());
  return index_ ? index_->document_begin(d) : begins_[static_cast<size_t>(d)];
}

int64_t Shard::document_at(int64_t position) const {
  CHECK(position >= 0 && position < tokens_, "Shard: position ", position, " of ", tokens_);
  int64_t low = 0, high = documents();  // begin(low) <= position < begin(high)
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (document_begin(middle) <= position ? low : high) = middle;
  }
  return low;
}

void Shard::read(int64_t position, int64_t count, int64_t vocab_size, int32_t* out) const {
  CHECK(position >= 0 && count >= 0 && position <= tokens_ - count, "Shard: tokens [", position,
        ", ", position + count, ") of ", tokens_);
  const uint32_t largest = with_tokens(
      type_, data_, [&](const auto* in) { return copy_and_max(in + position, count, out); });
  if (count > 0 && largest >= vocab_size) {
    fail_bad_token(find_bad_token(position, count, vocab_size), vocab_size);
  }
}

int64_t Shard::find_bad_token(int64_t position, int64_t count, int64_t vocab_size) const {
  return with_tokens(type_, data_, [&](const auto* in) -> int64_t {
    for (int64_t i = position; i < position + count; ++i) {
      if (in[i] >= vocab_size) return i;
    }
    return -1;
  });
}

void Shard::fail_bad_token(int64_t position, int64_t vocab_size) const {
  const int64_t token = with_tokens(type_, data_, [&](const auto* in) {
    return type_ == TokenType::i32 ? int64_t{static_cast<int32_t>(in[position])}
                                   : int64_t{in[position]};
  });
  fail(path().native(), ": token ", token, " at position ", position,
       " is outside the vocabulary of ", vocab_size,
       "; the model's vocab_size must cover the tokenizer's, else the shard is damaged");
}

int64_t Shard::token_at_byte(uint64_t bytes) const {
  const uint64_t header = index_ ? 0 : LlmcHeader::kBytes;
  return bytes <= header ? 0 : static_cast<int64_t>(bytes - header) / token_bytes(type_);
}

int64_t Shard::require_tokens(int64_t position, int64_t count, int64_t vocab_size) const {
  const uint32_t largest = with_tokens(type_, data_, [&](const auto* in) {
    uint32_t most = 0;
    for (int64_t i = position; i < position + count; ++i)
      most = std::max(most, static_cast<uint32_t>(in[i]));
    return most;
  });
  if (largest >= vocab_size)
    fail_bad_token(find_bad_token(position, count, vocab_size), vocab_size);
  return largest;
}

void Shard::require_vocab(int64_t vocab_size) const {
  if (vocab_size <= 0 || !info_ || info_->vocab_size <= vocab_size) return;
  fail(path().native(), ": written with a vocabulary of ", info_->vocab_size, ", the model has ",
       vocab_size, "; set the model's vocab_size to at least ", info_->vocab_size);
}

void Shard::verify(int64_t vocab_size) const {
  if (info_) {
    require_digest(*idx_, xxh64(idx_->bytes()), info_->idx_xxh64);
    require_digest(bin_, xxh64(bin_.bytes()), info_->bin_xxh64);
    require_vocab(vocab_size);  // the checksums prove that the tokens are those the tokenizer wrote
    return;
  }
  if (vocab_size > 0) require_tokens(0, tokens_, vocab_size);
}

std::vector<fs::path> find_shards(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    const fs::path prefix = prefix_of(path);
    if (present(with_suffix(prefix, ".idx")) || present(with_suffix(prefix, ".bin")))
      return {prefix};
    fail("no shard at ", path.native(), ": expected ", prefix.native(), ".idx with ",
         prefix.filename().native(), ".bin (Megatron, `rodimus tokenize`), or an llm.c .bin file");
  }
  std::set<fs::path> prefixes;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
    const fs::path extension = entry.path().extension();
    if (extension == ".bin" || extension == ".idx") prefixes.insert(prefix_of(entry.path()));
  }
  if (error) fail("cannot list ", path.native(), ": ", error.message());
  if (prefixes.empty()) {
    fail("no shards in ", path.native(), ": expected .bin files, as `rodimus tokenize` writes");
  }
  if (prefixes.contains(path / "train") && prefixes.contains(path / "val")) {
    fail(path.native(), " holds both train and val shards; name one: ", (path / "train").native());
  }
  return {prefixes.begin(), prefixes.end()};
}

}  // namespace rodimus
