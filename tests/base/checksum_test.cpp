// Known answers from the public reference implementation (xxhsum -H1), and streaming in odd-sized
// pieces.
#include "base/checksum.h"

#include <gtest/gtest.h>

#include <vector>

namespace rodimus {
namespace {

// byte i = i * 7 + 3, the input of the known answers below.
std::string pattern(size_t n) {
  std::string text(n, '\0');
  for (size_t i = 0; i < n; ++i) text[i] = static_cast<char>(i * 7 + 3);
  return text;
}

TEST(Xxh64, KnownAnswers) {
  EXPECT_EQ(hex64(xxh64("")), "ef46db3751d8e999");
  EXPECT_EQ(hex64(xxh64("a")), "d24ec4f1a98c6e5b");
  EXPECT_EQ(hex64(xxh64("abc")), "44bc2cf5ad770999");
  EXPECT_EQ(hex64(xxh64(pattern(4))), "9bb64b7d66ee9fda");
  EXPECT_EQ(hex64(xxh64(pattern(8))), "dab99d95c6f90092");
  EXPECT_EQ(hex64(xxh64(pattern(31))), "a2aa5f33cc4a6119");
  EXPECT_EQ(hex64(xxh64(pattern(32))), "23c3c17ef790fd97");
  EXPECT_EQ(hex64(xxh64(pattern(33))), "50a7cfc7ba588784");
  EXPECT_EQ(hex64(xxh64(pattern(63))), "5e3e54b431c7493c");
  EXPECT_EQ(hex64(xxh64(pattern(64))), "0eb64b3ef6eeb01f");
  EXPECT_EQ(hex64(xxh64(pattern(100))), "a61f8d4c170fe531");
  EXPECT_EQ(hex64(xxh64(pattern(1000))), "5f235fa033f1a3fb");
}

TEST(Xxh64, PiecesGiveTheSameDigest) {
  const std::string text = pattern(1000);
  for (const size_t piece : {1, 3, 31, 32, 33, 100, 999}) {
    Xxh64 hash;
    for (size_t i = 0; i < text.size(); i += piece) {
      const std::string part = text.substr(i, piece);
      hash.update(std::as_bytes(std::span(part)));
    }
    EXPECT_EQ(hash.digest(), xxh64(text)) << piece;
  }
}

TEST(Xxh64, EveryBitCounts) {
  std::string text = pattern(77);
  const uint64_t whole = xxh64(text);
  for (size_t i = 0; i < text.size() * 8; ++i) {
    text[i / 8] = static_cast<char>(text[i / 8] ^ (1 << (i % 8)));
    EXPECT_NE(xxh64(text), whole) << i;
    text[i / 8] = static_cast<char>(text[i / 8] ^ (1 << (i % 8)));
  }
}

}  // namespace
}  // namespace rodimus
