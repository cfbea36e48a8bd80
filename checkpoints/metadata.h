// The two descriptions in a checkpoint: metadata (a text inside checkpoint.h5: what is stored
// where) and manifest.json (size and checksum of every file). Both parsers accept any bytes and
// throw only Error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "checkpoints/files.h"

namespace rodimus {

inline constexpr int64_t kFormatVersion = 1;
inline constexpr const char* kVirtualFile = "checkpoint.h5";
inline constexpr const char* kManifestFile = "manifest.json";
std::string rank_file_name(int rank);  // rank_0007.h5

// `state` comes without its two long texts, which are separate datasets.
struct Metadata {
  std::string id;  // 32 hexadecimal digits, random, the same in all files of one save
  TrainState state;
  std::vector<std::string> groups;
  FlatLayout layout;
  std::vector<Range> ranges;  // of each rank
  int world_size() const { return static_cast<int>(ranges.size()); }
};
std::string format_metadata(const Metadata& metadata);
Metadata parse_metadata(std::string_view text);

struct ManifestFile {
  std::string name;
  FileSum sum;
};
struct Manifest {
  std::string id;
  int64_t step = 0;
  int world_size = 0;
  std::vector<ManifestFile> files;  // rank_0000.h5 ..., checkpoint.h5
};
// A JSON object whose last line is the XXH64 of all bytes before that line, so that a change to any
// byte of the manifest is noticed.
std::string format_manifest(const Manifest& manifest);
Manifest parse_manifest(std::string_view text);

}  // namespace rodimus
