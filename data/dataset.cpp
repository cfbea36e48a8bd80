#include "data/dataset.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace rodimus {
namespace {

// The shard that item i belongs to, given running totals per shard; empty shards own nothing.
template <class T>
size_t owner(const std::vector<T>& first, T i) {
  return static_cast<size_t>(std::upper_bound(first.begin(), first.end(), i) - first.begin()) - 1;
}

}  // namespace

std::vector<Shard> open_shards(const std::vector<std::filesystem::path>& paths,
                               std::optional<int32_t> document_delimiter) {
  if (paths.empty()) fail("no data: the list of shards is empty");
  std::vector<Shard> shards;
  for (const auto& path : paths) {
    for (const auto& prefix : find_shards(path))
      shards.push_back(Shard::open_unchecked(prefix, document_delimiter));
  }
  return shards;
}

Dataset::Dataset(const DatasetConfig& config)
    : Dataset(open_shards(config.paths, config.document_delimiter), config.seq_len,
              config.vocab_size, config.needs_window) {
  for (const Shard& shard : shards_) {
    shard.check_structure();
    if (config.verify) shard.verify(vocab_size_);
  }
}

Dataset::Dataset(std::vector<Shard> shards, int64_t seq_len, int64_t vocab_size, bool needs_window)
    : shards_(std::move(shards)),
      first_window_{0},
      first_piece_{0},
      first_document_{0},
      seq_len_(seq_len),
      vocab_size_(vocab_size) {
  CHECK(seq_len_ >= 1 && vocab_size_ >= 1, "Dataset: seq_len = ", seq_len_,
        ", vocab_size = ", vocab_size_, ", both must be at least 1");
  const Shard* hash_source = nullptr;
  for (const Shard& shard : shards_) {
    const std::string hash = shard.info() ? shard.info()->tokenizer_hash : "";
    if (!hash.empty() && hash_source == nullptr) {
      tokenizer_hash_ = hash;
      hash_source = &shard;
    } else if (!hash.empty() && hash != tokenizer_hash_) {
      fail(shard.path().native(), " was written with tokenizer ", hash, ", ",
           hash_source->path().native(), " with ", tokenizer_hash_,
           "; tokenize both with the same --tokenizer");
    }
    const int64_t predictable = std::max<int64_t>(0, shard.tokens() - 1);
    const int64_t windows = predictable / seq_len_, tail = predictable % seq_len_;
    first_window_.push_back(first_window_.back() + static_cast<uint64_t>(windows));
    first_piece_.push_back(first_piece_.back() + windows + (tail > 0 ? 1 : 0));
    first_document_.push_back(first_document_.back() + shard.documents());
  }
  if (needs_window && windows() == 0) {
    fail("no shard holds ", seq_len_ + 1, " tokens, which one window of seq_len ", seq_len_,
         " needs: ", shards_.size(), " shard(s) with ", tokens(), " tokens in all, the first is ",
         shards_.front().path().native(), "; lower seq_len or add text");
  }
}

int64_t Dataset::tokens() const {
  int64_t total = 0;
  for (const Shard& shard : shards_) total += shard.tokens();
  return total;
}

int64_t Dataset::predictable() const {
  int64_t total = 0;
  for (const Shard& shard : shards_) total += std::max<int64_t>(0, shard.tokens() - 1);
  return total;
}

Dataset::Piece Dataset::piece(int64_t i) const {
  CHECK(i >= 0 && i < pieces(), "Dataset: piece ", i, " of ", pieces());
  const size_t s = owner(first_piece_, i);
  const int64_t begin = (i - first_piece_[s]) * seq_len_;
  return {s, begin, std::min(seq_len_, shards_[s].tokens() - 1 - begin)};
}

void Dataset::read(uint64_t w, int32_t* tokens, int32_t* starts) const {
  CHECK(w < windows(), "Dataset: window ", w, " of ", windows());
  const size_t s = owner(first_window_, w);
  read({s, static_cast<int64_t>(w - first_window_[s]) * seq_len_, seq_len_}, tokens, starts);
}

void Dataset::read(const Piece& piece, int32_t* tokens, int32_t* starts) const {
  const Shard& shard = shards_.at(piece.shard);
  const int64_t begin = piece.begin;
  shard.read(begin, piece.predictions + 1, vocab_size_, tokens);
  if (starts == nullptr) return;
  int64_t document = shard.document_at(begin);
  int64_t start = std::max(shard.document_begin(document), begin);
  int64_t next = shard.document_begin(document + 1);
  for (int64_t position = begin; position < begin + piece.predictions; ++position) {
    while (position >= next) {  // repeats only past empty documents
      start = next;
      next = shard.document_begin(++document + 1);
    }
    starts[position - begin] = static_cast<int32_t>(start - begin);
  }
}

int64_t Dataset::document_size(int64_t d) const {
  CHECK(d >= 0 && d < documents(), "Dataset: document ", d, " of ", documents());
  const size_t s = owner(first_document_, d);
  const int64_t local = d - first_document_[s];
  return shards_[s].document_begin(local + 1) - shards_[s].document_begin(local);
}

std::vector<int32_t> Dataset::document(int64_t d, int64_t most) const {
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(most, document_size(d))));
  const size_t s = owner(first_document_, d);
  shards_[s].read(shards_[s].document_begin(d - first_document_[s]),
                  static_cast<int64_t>(tokens.size()), vocab_size_, tokens.data());
  return tokens;
}

}  // namespace rodimus
