// libFuzzer: any bytes as an llm.c shard. Whatever parse() accepts must contain all its tokens.
#include <cstdlib>
#include <span>

#include "base/error.h"
#include "data/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using rodimus::LlmcHeader;
  const auto file = std::as_bytes(std::span(data, size));
  try {
    const LlmcHeader header = LlmcHeader::parse(file, "fuzz.bin");
    if (!LlmcHeader::has_magic(file) || header.tokens < 1) std::abort();
    const int64_t end =
        LlmcHeader::kBytes + header.tokens * rodimus::token_bytes(header.token_type);
    if (static_cast<uint64_t>(end) > size) std::abort();
  } catch (const rodimus::Error&) {
  }
  return 0;
}
