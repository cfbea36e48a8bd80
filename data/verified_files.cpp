#include "data/verified_files.h"

#include <nlohmann/json.hpp>

#include "base/checksum.h"
#include "base/json.h"

namespace rodimus {
namespace {

using Json = nlohmann::json;

constexpr int kVersion = 1;
constexpr const char* kFormat = "rodimus verified files";

std::string text_of(const Json& json) { return to_text(json, 1); }

}  // namespace

std::string to_json(const VerifiedFiles& files) {
  Json list = Json::object();
  for (const auto& [path, file] : files) {
    list[path] = {file.bytes, file.mtime_ns, hex64(file.xxh64), file.largest_token};
  }
  const std::string checksum = hex64(xxh64(text_of(list)));
  return text_of({{"format", kFormat},
                  {"version", kVersion},
                  {"columns", {"bytes", "mtime_ns", "xxh64", "largest_token"}},
                  {"files", std::move(list)},
                  {"xxh64", checksum}}) +
         "\n";
}

VerifiedFiles parse_verified(const std::string& text) {
  VerifiedFiles files;
  try {
    const Json json = parse_json(text);
    if (json.at("format") != kFormat || json.at("version") != kVersion) return {};
    const Json& list = json.at("files");
    if (json.at("xxh64") != hex64(xxh64(text_of(list)))) return {};
    for (const auto& [path, row] : list.items()) {
      files[path] = {.bytes = row.at(0),
                     .mtime_ns = row.at(1),
                     .xxh64 = std::stoull(row.at(2).get<std::string>(), nullptr, 16),
                     .largest_token = row.at(3)};
    }
  } catch (const std::exception&) {
    return {};
  }
  return files;
}

}  // namespace rodimus
