// Reads one file of a shard in pieces, to verify it: so that several ranks share the work, show how
// far they are, and can be stopped.
#pragma once

#include "base/checksum.h"
#include "data/shard.h"
#include "data/verified_files.h"

namespace rodimus {

class FileCheck {
 public:
  // The tokens of `shard`, or its index (which it must have). The checksum is compared with that of
  // NAME.json; without one, every token is compared with `vocab_size` (0: not). `shard` must
  // outlive this.
  enum class Part { tokens, index };
  FileCheck(const Shard& shard, Part part, int64_t vocab_size);

  uint64_t bytes() const { return file_->bytes().size(); }
  bool done() const { return read_ == bytes(); }
  // Reads up to `most` more bytes, and returns how many. Throws Error, at once or with the last
  // piece, when the file is damaged.
  uint64_t advance(uint64_t most);

  // What it is in memory of verified files. The checksum is known when done.
  std::string path() const;
  VerifiedFile result() const;
  // Whether reading tells anything: not of the index of a shard without NAME.json, where the
  // structure is all there is to check.
  bool is_needed() const { return recorded_ || vocab_size_ > 0; }
  // Whether `known` says all that reading would say.
  bool known_by(const VerifiedFiles& known) const;

 private:
  const Shard& shard_;
  const MappedFile* file_;
  std::optional<uint64_t> recorded_;  // checksum of NAME.json
  int64_t vocab_size_;                // 0: tokens are not looked at
  Xxh64 hash_;
  uint64_t read_ = 0;
  int64_t largest_ = -1;
};

}  // namespace rodimus
