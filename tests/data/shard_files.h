// Token files built byte by byte from the format descriptions, not with our writer.
#pragma once

#include <vector>

#include "tests/support/temporary_folder.h"

namespace rodimus::testing {

struct MegatronFields {
  uint64_t version = 1;
  uint8_t code = 8;
  std::vector<int32_t> sizes;
  std::vector<int64_t> pointers, ends;
};

inline std::string megatron_idx(const MegatronFields& fields) {
  std::string bytes("MMIDIDX\0\0", 9);
  append(bytes, std::vector<uint64_t>{fields.version});
  append(bytes, std::vector<uint8_t>{fields.code});
  append(bytes, std::vector<uint64_t>{fields.sizes.size(), fields.ends.size()});
  append(bytes, fields.sizes);
  append(bytes, fields.pointers);
  append(bytes, fields.ends);
  return bytes;
}

// Three sequences in two documents: {10, 11, 12, 13, 14} and {20, 21}.
inline MegatronFields small_fields() {
  return {.sizes = {3, 2, 2}, .pointers = {0, 6, 10}, .ends = {0, 2, 3}};
}

inline std::string small_bin() {
  std::string bytes;
  append(bytes, std::vector<uint16_t>{10, 11, 12, 13, 14, 20, 21});
  return bytes;
}

template <class T>
std::string llmc_bin(int32_t magic, int32_t version, const std::vector<T>& tokens) {
  std::vector<int32_t> header(256);
  header[0] = magic;
  header[1] = version;
  header[2] = static_cast<int32_t>(tokens.size());
  std::string bytes;
  append(bytes, header);
  append(bytes, tokens);
  return bytes;
}

}  // namespace rodimus::testing
