#include "data/shard_index.h"

#include <cstring>

#include "base/error.h"

namespace rodimus {
namespace {

// The packed header misaligns every array, hence memcpy.
template <class T>
T load(std::span<const std::byte> bytes, int64_t index = 0) {
  T value;
  std::memcpy(&value, bytes.data() + static_cast<size_t>(index) * sizeof(T), sizeof(T));
  return value;
}

constexpr int32_t kLlmcUint16 = 20240520, kLlmcUint32 = 20240801, kLlmcEvaluation = 20240522;
constexpr const char* kAdvice = "; the file is damaged or incomplete: copy it or tokenize again";

}  // namespace

MegatronIndex MegatronIndex::parse(std::span<const std::byte> file, uint64_t bin_bytes,
                                   const std::string& name) {
  const MegatronIndex index = parse_header(file, bin_bytes, name);
  index.check(name);
  return index;
}

MegatronIndex MegatronIndex::parse_header(std::span<const std::byte> file, uint64_t bin_bytes,
                                          const std::string& name) {
  if (file.size() < kMegatronHeaderBytes) {
    fail(name, ": ", file.size(), " bytes, an index has at least ", kMegatronHeaderBytes, kAdvice);
  }
  if (std::memcmp(file.data(), kMegatronMagic, sizeof kMegatronMagic) != 0) {
    fail(name, ": does not start with MMIDIDX, so it is not a Megatron index", kAdvice);
  }
  const auto version = load<uint64_t>(file.subspan(9));
  if (version != 1) fail(name, ": index version ", version, ", only version 1 is known", kAdvice);
  const auto code = load<uint8_t>(file.subspan(17));
  if (code != kMegatronUint16 && code != kMegatronInt32) {
    fail(name, ": dtype code ", int{code}, ", tokens must be uint16 (8) or int32 (4)");
  }
  const auto sequences = load<uint64_t>(file.subspan(18));
  const auto ends = load<uint64_t>(file.subspan(26));
  // Bounding both counts by the file size first keeps the sum from overflowing.
  const bool countable = sequences <= file.size() && ends <= file.size();
  const uint64_t expected = kMegatronHeaderBytes + sequences * 12 + ends * 8;
  if (!countable || (expected != file.size() && expected + sequences != file.size())) {
    fail(name, ": ", file.size(), " bytes do not fit the ", sequences, " sequences and ", ends,
         " document bounds of its header", kAdvice);
  }
  if (sequences > 0 && expected + sequences == file.size()) {
    fail(name, ": a multimodal dataset (it has sequence modes); only text is supported");
  }
  if (sequences == 0 || ends < 2) fail(name, ": the dataset holds no documents");

  MegatronIndex index;
  index.type_ = code == kMegatronUint16 ? TokenType::u16 : TokenType::i32;
  index.sequences_ = static_cast<int64_t>(sequences);
  index.documents_ = static_cast<int64_t>(ends) - 1;
  index.sizes_ = file.subspan(kMegatronHeaderBytes, sequences * 4);
  index.pointers_ = file.subspan(kMegatronHeaderBytes + sequences * 4, sequences * 8);
  index.ends_ = file.subspan(kMegatronHeaderBytes + sequences * 12, ends * 8);
  index.bin_bytes_ = bin_bytes;
  index.tokens_ = static_cast<int64_t>(bin_bytes) / token_bytes(index.type_);
  return index;
}

void MegatronIndex::check(const std::string& name) const {
  const auto width = static_cast<uint64_t>(token_bytes(type_));
  uint64_t offset = 0;  // at most 2^31 * 4 per step and bounded by bin_bytes_: cannot overflow
  for (int64_t s = 0; s < sequences_; ++s) {
    const auto size = load<int32_t>(sizes_, s);
    const auto pointer = load<int64_t>(pointers_, s);
    if (size < 0 || pointer < 0 || static_cast<uint64_t>(pointer) != offset) {
      fail(name, ": sequence ", s, " has size ", size, " and byte offset ", pointer, ", expected ",
           offset, kAdvice);
    }
    offset += static_cast<uint64_t>(size) * width;
    if (offset > bin_bytes_) break;
  }
  if (offset != bin_bytes_) {
    fail(name, ": its sequences need ", offset > bin_bytes_ ? "more than " : "", offset,
         " bytes of tokens, the .bin file has ", bin_bytes_, kAdvice);
  }
  if (offset == 0) fail(name, ": the dataset holds no tokens");

  int64_t previous = 0;
  for (int64_t e = 0; e <= documents_; ++e) {
    const auto end = load<int64_t>(ends_, e);
    if (end < previous || end > sequences_ || (e == 0 && end != 0)) {
      fail(name, ": document bound ", e, " is ", end, ", expected ",
           e == 0 ? "0" : concat("between ", previous, " and ", sequences_), kAdvice);
    }
    previous = end;
  }
  if (previous != sequences_) {
    fail(name, ": documents end at sequence ", previous, " of ", sequences_, kAdvice);
  }
}

int64_t MegatronIndex::document_begin(int64_t d) const {
  const auto sequence = load<int64_t>(ends_, d);
  if (sequence == sequences_) return tokens_;
  return load<int64_t>(pointers_, sequence) / token_bytes(type_);
}

bool LlmcHeader::has_magic(std::span<const std::byte> file) {
  if (file.size() < sizeof(int32_t)) return false;
  const auto magic = load<int32_t>(file);
  return magic == kLlmcUint16 || magic == kLlmcUint32 || magic == kLlmcEvaluation;
}

LlmcHeader LlmcHeader::parse(std::span<const std::byte> file, const std::string& name) {
  if (file.size() < kBytes) {
    fail(name, ": ", file.size(), " bytes, an llm.c header has ", kBytes, kAdvice);
  }
  const auto magic = load<int32_t>(file, 0), version = load<int32_t>(file, 1),
             tokens = load<int32_t>(file, 2);
  if (magic == kLlmcEvaluation) {
    fail(name, ": an llm.c multiple-choice file; only token shards are supported");
  }
  if (magic != kLlmcUint16 && magic != kLlmcUint32) {
    fail(name, ": not an llm.c shard: its first number is ", magic, ", expected ", kLlmcUint16,
         " or ", kLlmcUint32);
  }
  const int32_t known = magic == kLlmcUint16 ? 1 : 7;
  if (version != known) fail(name, ": llm.c version ", version, ", expected ", known, kAdvice);
  if (tokens <= 0) fail(name, ": the header counts ", tokens, " tokens", kAdvice);
  const LlmcHeader header{magic == kLlmcUint16 ? TokenType::u16 : TokenType::u32, tokens};
  const int64_t expected = kBytes + header.tokens * token_bytes(header.token_type);
  if (file.size() != static_cast<uint64_t>(expected)) {
    fail(name, ": ", file.size(), " bytes, its header announces ", tokens, " tokens, that is ",
         expected, " bytes", kAdvice);
  }
  return header;
}

}  // namespace rodimus
