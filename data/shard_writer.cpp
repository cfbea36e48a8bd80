#include "data/shard_writer.h"

#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "data/mapped_file.h"

namespace rodimus {

TokenType token_type_for(int64_t vocab_size) {
  return vocab_size <= 65536 ? TokenType::u16 : TokenType::i32;
}

ShardWriter::ShardWriter(std::filesystem::path prefix, ShardInfo info)
    : prefix_(std::move(prefix)),
      info_(std::move(info)),
      type_(token_type_for(info_.vocab_size)),
      bin_(prefix_.native() + ".bin"),
      sizes_(prefix_.native() + ".sizes"),
      idx_(prefix_.native() + ".idx"),
      json_(prefix_.native() + ".json") {
  info_.documents = info_.tokens = info_.text_bytes = info_.text_words = 0;
  info_.lossless = true;
}

void ShardWriter::add_document(std::span<const int32_t> tokens, int64_t text_bytes,
                               int64_t text_words, std::optional<bool> lossless) {
  CHECK(!tokens.empty(), "ShardWriter: document ", info_.documents, " has no tokens");
  if (tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    fail("document ", info_.documents, " has ", tokens.size(),
         " tokens, a shard can index 2147483647; split the text into smaller documents");
  }
  for (const int32_t token : tokens) {
    CHECK(token >= 0 && token < info_.vocab_size, "ShardWriter: token ", token, " in document ",
          info_.documents, ", the vocabulary has ", info_.vocab_size);
  }
  if (type_ == TokenType::u16) {
    const std::vector<uint16_t> narrowed(tokens.begin(), tokens.end());
    bin_.write(std::as_bytes(std::span(narrowed)));
  } else {
    bin_.write(std::as_bytes(tokens));
  }
  sizes_.write_value(static_cast<int32_t>(tokens.size()));
  ++info_.documents;
  info_.tokens += static_cast<int64_t>(tokens.size());
  info_.text_bytes += text_bytes;
  info_.text_words = text_words < 0 || info_.text_words < 0 ? -1 : info_.text_words + text_words;
  if (!lossless || !info_.lossless) {
    info_.lossless.reset();
  } else {
    info_.lossless = *info_.lossless && *lossless;
  }
}

void ShardWriter::write_index(const std::filesystem::path& sizes_file) {
  const MappedFile sizes(sizes_file);
  idx_.write(std::string_view(kMegatronMagic, sizeof kMegatronMagic));
  idx_.write_value(uint64_t{1});
  idx_.write_value(type_ == TokenType::u16 ? kMegatronUint16 : kMegatronInt32);
  idx_.write_value(static_cast<uint64_t>(info_.documents));
  idx_.write_value(static_cast<uint64_t>(info_.documents + 1));
  idx_.write(sizes.bytes());
  int64_t pointer = 0;
  for (int64_t d = 0; d < info_.documents; ++d) {
    idx_.write_value(pointer);
    int32_t size;
    std::memcpy(&size, sizes.bytes().data() + d * 4, sizeof size);
    pointer += size * token_bytes(type_);
  }
  for (int64_t d = 0; d <= info_.documents; ++d) idx_.write_value(d);
}

void ShardWriter::close() {
  if (info_.documents == 0) fail("no documents for ", prefix_.native());
  bin_.close();
  sizes_.close();
  write_index(sizes_.temporary());
  idx_.close();
  info_.bin_xxh64 = bin_.digest();
  info_.idx_xxh64 = idx_.digest();
  json_.write(to_json(info_));
  json_.close();
}

void ShardWriter::publish() {
  // The old index is removed first and the new one appears last: if this is killed half-way, or a
  // reader starts in between, there is no shard rather than a mixture of two.
  std::error_code ignored;
  std::filesystem::remove(prefix_.native() + ".idx", ignored);
  bin_.publish();
  json_.publish();
  idx_.publish();
  sync_path(prefix_.parent_path());
}

}  // namespace rodimus
