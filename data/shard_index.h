// Parsers for the headers of the two token formats we read. They work on memory and trust nothing
// before it is checked, so a truncated or damaged file gives a clear Error and never an
// out-of-bounds read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace rodimus {

enum class TokenType : uint8_t { u16, i32, u32 };

inline int64_t token_bytes(TokenType type) { return type == TokenType::u16 ? 2 : 4; }

inline constexpr char kMegatronMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
inline constexpr int64_t kMegatronHeaderBytes = 34;

// The codes of Megatron's DType that we accept for tokens.
inline constexpr uint8_t kMegatronInt32 = 4, kMegatronUint16 = 8;

// NAME.idx of a Megatron-LM indexed dataset, little-endian and packed:
//   magic[9]  version u64 = 1  dtype u8  S u64  E u64  sizes i32[S]  pointers i64[S]  ends i64[E]
// sizes: tokens of a sequence; pointers: its byte offset in NAME.bin; document d owns the sequences
// [ends[d], ends[d+1]), so E = documents + 1.
class MegatronIndex {
 public:
  // `file` must outlive the result; `bin_bytes` is the size of NAME.bin, which the sequences must
  // fill exactly, in order; `name` is used in errors. Throws Error.
  static MegatronIndex parse(std::span<const std::byte> file, uint64_t bin_bytes,
                             const std::string& name);
  // The first part of parse(): only the header, in constant time. Before documents are used, call
  // check(), the second part, which reads all of `file` and which several ranks may share.
  static MegatronIndex parse_header(std::span<const std::byte> file, uint64_t bin_bytes,
                                    const std::string& name);
  void check(const std::string& name) const;

  TokenType token_type() const { return type_; }
  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }
  // Position in NAME.bin of the first token of document d; d = documents() gives tokens().
  int64_t document_begin(int64_t d) const;

 private:
  std::span<const std::byte> sizes_, pointers_, ends_;
  uint64_t bin_bytes_ = 0;
  int64_t tokens_ = 0, documents_ = 0, sequences_ = 0;
  TokenType type_ = TokenType::u16;
};

// The first 1024 bytes of an llm.c shard: i32[256] = {magic, version, tokens, ...}; magic 20240520
// version 1 is followed by uint16 tokens, magic 20240801 version 7 by uint32 tokens.
struct LlmcHeader {
  static constexpr int64_t kBytes = 1024;
  TokenType token_type;
  int64_t tokens;

  static bool has_magic(std::span<const std::byte> file);
  // Checks only the header and the size of `file`. Throws Error.
  static LlmcHeader parse(std::span<const std::byte> file, const std::string& name);
};

}  // namespace rodimus
