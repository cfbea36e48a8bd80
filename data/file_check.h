// Verifies one file of a shard in pieces, so that several ranks can share the work, show progress,
// and be interrupted.
#pragma once

#include "base/checksum.h"
#include "data/shard.h"
#include "data/verified_files.h"

namespace rodimus {

class FileCheck {
 public:
  // The tokens of `shard`, or its index (which it must have). The checksum is compared with the one
  // in NAME.json; if there is none, every token is compared with `vocab_size` (0: not checked).
  // `shard` must outlive this object.
  enum class Part { tokens, index };
  FileCheck(const Shard& shard, Part part, int64_t vocab_size);

  uint64_t bytes() const { return file_->bytes().size(); }
  bool done() const { return read_ == bytes(); }
  // Reads up to `most` more bytes and returns how many. Throws Error if the file is damaged, either
  // at once or with the last piece.
  uint64_t advance(uint64_t most);

  // The file's key and entry in VerifiedFiles. The checksum is known once done().
  std::string path() const;
  VerifiedFile result() const;
  // Whether there is anything to verify by reading: not for the index of a shard without NAME.json,
  // of which only the structure can be checked.
  bool is_needed() const { return recorded_ || vocab_size_ > 0; }
  // Whether `known` already covers everything that reading would establish.
  bool known_by(const VerifiedFiles& known) const;

 private:
  const Shard& shard_;
  const MappedFile* file_;
  std::optional<uint64_t> recorded_;  // checksum in NAME.json
  int64_t vocab_size_;                // 0: tokens are not checked
  Xxh64 hash_;
  uint64_t read_ = 0;
  int64_t largest_ = -1;
};

}  // namespace rodimus
