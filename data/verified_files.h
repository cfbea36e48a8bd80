// What verification has found out about the files of shards, and its memory on the disk: a restart
// reads nothing again that has not changed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace rodimus {

struct VerifiedFile {
  uint64_t bytes = 0;
  int64_t mtime_ns = 0;        // since 1970
  uint64_t xxh64 = 0;          // of all of it
  int64_t largest_token = -1;  // where tokens were looked at one by one; else -1

  bool operator==(const VerifiedFile&) const = default;
};

// By absolute path.
using VerifiedFiles = std::map<std::string, VerifiedFile>;

// The name in a run folder.
inline constexpr const char* kVerifiedFile = "verified.json";

// The text of the file; it carries a checksum of itself. A path that is not UTF-8 will not be found
// again in it.
std::string to_json(const VerifiedFiles& files);

// Empty when the text is missing, damaged or of another version: that only costs reading again.
VerifiedFiles parse_verified(const std::string& text);

}  // namespace rodimus
