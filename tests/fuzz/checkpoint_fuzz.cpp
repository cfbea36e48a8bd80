// Any bytes as manifest.json and as the metadata text of checkpoint.h5: the parsers may throw Error
// and nothing else. The manifest is also tried with a corrected checksum, or nearly every input
// would stop there.
#include <string>
#include <string_view>

#include "base/checksum.h"
#include "base/error.h"
#include "checkpoints/metadata.h"

namespace {

template <class Parse>
void must_only_throw_error(Parse parse) {
  try {
    parse();
  } catch (const rodimus::Error&) {
  }
}

// What format_manifest appends to the bytes that the checksum covers.
std::string with_checksum(std::string_view covered) {
  return rodimus::concat(covered, "  \"manifest_xxh64\": \"",
                         rodimus::hex64(rodimus::xxh64(covered)), "\"\n}\n");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  must_only_throw_error([&] { rodimus::parse_manifest(text); });
  must_only_throw_error([&] { rodimus::parse_manifest(with_checksum(text)); });
  must_only_throw_error([&] {
    // What was accepted must survive a round trip.
    const rodimus::Metadata metadata = rodimus::parse_metadata(text);
    rodimus::parse_metadata(rodimus::format_metadata(metadata));
  });
  return 0;
}
