#include "data/file_check.h"

#include <algorithm>

#include "base/error.h"

namespace rodimus {

FileCheck::FileCheck(const Shard& shard, Part part, int64_t vocab_size)
    : shard_(shard),
      file_(part == Part::tokens ? &shard.bin() : shard.idx()),
      vocab_size_(part == Part::tokens && !shard.info() ? vocab_size : 0) {
  CHECK(file_ != nullptr, "FileCheck: ", shard.path().native(), " has no index");
  if (shard.info())
    recorded_ = part == Part::tokens ? shard.info()->bin_xxh64 : shard.info()->idx_xxh64;
}

uint64_t FileCheck::advance(uint64_t most) {
  const uint64_t count = std::min(most, bytes() - read_);
  hash_.update(file_->bytes().subspan(read_, count));
  if (vocab_size_ > 0) {
    // The tokens that end within this piece.
    const auto first = shard_.token_at_byte(read_), end = shard_.token_at_byte(read_ + count);
    largest_ = std::max(largest_, shard_.require_tokens(first, end - first, vocab_size_));
  }
  // If this throws, the check never becomes done().
  if (read_ + count == bytes() && recorded_) require_digest(*file_, hash_.digest(), *recorded_);
  read_ += count;
  return count;
}

std::string FileCheck::path() const {
  return std::filesystem::absolute(file_->path()).lexically_normal().native();
}

VerifiedFile FileCheck::result() const {
  return {.bytes = bytes(),
          .mtime_ns = file_->mtime_ns(),
          .xxh64 = done() ? hash_.digest() : recorded_.value_or(0),
          .largest_token = largest_};
}

bool FileCheck::known_by(const VerifiedFiles& known) const {
  const auto found = known.find(path());
  if (found == known.end()) return false;
  const VerifiedFile& file = found->second;
  if (file.bytes != bytes() || file.mtime_ns != file_->mtime_ns()) return false;
  if (recorded_) return file.xxh64 == *recorded_;
  return vocab_size_ == 0 || (file.largest_token >= 0 && file.largest_token < vocab_size_);
}

}  // namespace rodimus
