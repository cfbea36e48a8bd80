// What verification has established about shard files, stored on disk so that a restart does not
// reread unchanged files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace rodimus {

struct VerifiedFile {
  uint64_t bytes = 0;
  int64_t mtime_ns = 0;        // since 1970
  uint64_t xxh64 = 0;          // of the whole file
  int64_t largest_token = -1;  // if tokens were checked one by one; else -1

  bool operator==(const VerifiedFile&) const = default;
};

// Keyed by absolute path.
using VerifiedFiles = std::map<std::string, VerifiedFile>;

// The file's name in a run folder.
inline constexpr const char* kVerifiedFile = "verified.json";

// The content of the file, including a checksum of itself. A path that is not UTF-8 will not be
// found again.
std::string to_json(const VerifiedFiles& files);

// Empty when the text is missing, damaged or of another version, which only means verifying again.
VerifiedFiles parse_verified(const std::string& text);

}  // namespace rodimus
