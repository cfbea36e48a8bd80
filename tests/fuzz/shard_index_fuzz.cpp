// libFuzzer: any bytes as NAME.idx. The first eight stand for the size of NAME.bin. Whatever
// parse() accepts must be safe to walk.
#include <cstdlib>
#include <cstring>
#include <span>

#include "base/error.h"
#include "data/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint64_t bin_bytes = 0;
  if (size < sizeof bin_bytes) return 0;
  std::memcpy(&bin_bytes, data, sizeof bin_bytes);
  const auto file = std::as_bytes(std::span(data, size)).subspan(sizeof bin_bytes);
  try {
    const auto index = rodimus::MegatronIndex::parse(file, bin_bytes, "fuzz.idx");
    int64_t previous = 0;
    for (int64_t d = 0; d <= index.documents(); ++d) {
      const int64_t begin = index.document_begin(d);
      if (begin < previous || begin > index.tokens()) std::abort();
      previous = begin;
    }
    const auto width = static_cast<uint64_t>(rodimus::token_bytes(index.token_type()));
    if (previous != index.tokens() || static_cast<uint64_t>(previous) * width != bin_bytes) {
      std::abort();
    }
  } catch (const rodimus::Error&) {
  }
  return 0;
}
