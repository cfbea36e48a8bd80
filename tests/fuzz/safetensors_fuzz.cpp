// Any bytes as the header of a safetensors file and as the index of its shards: only Error may come
// out. The first two bytes are the number of bytes that follow the header. In what is accepted the
// tensors must cover them.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "interop/safetensors.h"

namespace {

void parse_header(std::string_view text, uint64_t data_bytes) {
  uint64_t covered = 0;
  for (const auto& tensor : rodimus::parse_safetensors_header(text, data_bytes, "fuzz")) {
    if (tensor.begin != covered || tensor.end < tensor.begin) std::abort();
    if (rodimus::is_readable_type(tensor.type)) {
      const uint64_t width = tensor.type == "F32" ? 4 : 2;
      if (static_cast<uint64_t>(tensor.numel()) * width != tensor.end - tensor.begin) std::abort();
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    if (size >= 2) parse_header(text.substr(2), data[0] + 256u * data[1]);
  } catch (const rodimus::Error&) {
  }
  try {
    for (const auto& [tensor, file] : rodimus::parse_weight_map(text, "fuzz"))
      if (file.empty() || file.find('/') != std::string::npos || file == "..") std::abort();
  } catch (const rodimus::Error&) {
  }
  return 0;
}
