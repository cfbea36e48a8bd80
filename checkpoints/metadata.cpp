#include "checkpoints/metadata.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/checksum.h"
#include "base/error.h"
#include "base/json.h"
#include "checkpoints/layout.h"

namespace rodimus {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kChecksumKey = "  \"manifest_xxh64\": \"";
constexpr std::string_view kChecksumEnd = "\"\n}\n";
constexpr size_t kHexDigits = 16;
constexpr int64_t kMaxRanks = 1 << 20;

// nlohmann's accessors throw their own exceptions (absent key, wrong type): all become Error.
template <class Parse>
auto translated(const char* what, Parse parse) {
  try {
    return parse();
  } catch (const nlohmann::json::exception& error) {
    fail(what, ": ", error.what());
  }
}

// get<int64_t> silently converts 1.5 and 2^63.
int64_t integer(const Json& json) {
  if (!json.is_number_integer()) fail("expected an integer, found ", json.type_name());
  if (json.is_number_unsigned()) return narrow<int64_t>(json.get<uint64_t>());
  return json.get<int64_t>();
}

uint64_t parse_hex64(const std::string& text) {
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value, 16);
  if (text.size() != kHexDigits || result.ec != std::errc() || result.ptr != end)
    fail("'", text, "' is not a checksum of 16 hexadecimal digits");
  return value;
}

void check_version(const Json& json) {
  const int64_t version = integer(json.at("format_version"));
  if (version != kFormatVersion)
    fail("format version ", version, ", this program reads version ", kFormatVersion);
}

}  // namespace

std::string rank_file_name(int rank) { return fmt::format("rank_{:04d}.h5", rank); }

std::string format_metadata(const Metadata& metadata) {
  return translated("metadata", [&] {
    nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
    for (const TensorEntry& tensor : metadata.layout.tensors) {
      tensors.push_back(
          {{"name", tensor.name}, {"shape", tensor.shape}, {"offset", tensor.offset}});
    }
    nlohmann::ordered_json ranges = nlohmann::ordered_json::array();
    for (const Range& range : metadata.ranges) ranges.push_back({range.begin, range.end});
    const nlohmann::ordered_json json = {{"format_version", kFormatVersion},
                                         {"id", metadata.id},
                                         {"step", metadata.state.step},
                                         {"sample", metadata.state.sample},
                                         {"tokenizer_hash", metadata.state.tokenizer_hash},
                                         {"groups", metadata.groups},
                                         {"flat_size", metadata.layout.size},
                                         {"ranges", std::move(ranges)},
                                         {"tensors", std::move(tensors)}};
    return to_text(json);
  });
}

Metadata parse_metadata(std::string_view text) {
  return translated("metadata", [&] {
    const Json json = parse_json(text);
    check_version(json);
    Metadata metadata;
    metadata.id = json.at("id").get<std::string>();
    metadata.state.step = integer(json.at("step"));
    if (!json.at("sample").is_number_unsigned()) fail("'sample' must be a non-negative integer");
    metadata.state.sample = json.at("sample").get<uint64_t>();
    metadata.state.tokenizer_hash = json.at("tokenizer_hash").get<std::string>();
    metadata.groups = json.at("groups").get<std::vector<std::string>>();
    metadata.layout.size = integer(json.at("flat_size"));
    for (const Json& range : json.at("ranges")) {
      metadata.ranges.push_back({integer(range.at(0)), integer(range.at(1))});
    }
    for (const Json& tensor : json.at("tensors")) {
      TensorEntry& entry = metadata.layout.tensors.emplace_back();
      entry.name = tensor.at("name").get<std::string>();
      for (const Json& dim : tensor.at("shape")) entry.shape.push_back(integer(dim));
      entry.offset = integer(tensor.at("offset"));
    }
    check_layout(metadata.layout);
    if (metadata.ranges.empty() || metadata.ranges.size() > kMaxRanks) fail("no ranks");
    check_ranges(metadata.ranges, metadata.layout.size);
    return metadata;
  });
}

std::string format_manifest(const Manifest& manifest) {
  std::string text = fmt::format(
      "{{\n  \"format_version\": {},\n  \"id\": \"{}\",\n  \"step\": {},\n  \"world_size\": {},\n"
      "  \"files\": [\n",
      kFormatVersion, manifest.id, manifest.step, manifest.world_size);
  for (const ManifestFile& file : manifest.files) {
    text += fmt::format("    {{\"name\": \"{}\", \"size\": {}, \"xxh64\": \"{}\"}}{}\n", file.name,
                        file.sum.size, hex64(file.sum.xxh64),
                        &file == &manifest.files.back() ? "" : ",");
  }
  text += "  ],\n";
  return concat(text, kChecksumKey, hex64(xxh64(text)), kChecksumEnd);
}

Manifest parse_manifest(std::string_view text) {
  constexpr size_t kTail = kChecksumKey.size() + kHexDigits + kChecksumEnd.size();
  const std::string_view covered = text.substr(0, text.size() > kTail ? text.size() - kTail : 0);
  if (text.substr(covered.size()) != concat(kChecksumKey, hex64(xxh64(covered)), kChecksumEnd))
    fail("its own checksum does not match: the file is damaged or was edited");
  return translated("manifest", [&] {
    const Json json = parse_json(text);
    check_version(json);
    Manifest manifest;
    manifest.id = json.at("id").get<std::string>();
    manifest.step = integer(json.at("step"));
    const int64_t world_size = integer(json.at("world_size"));
    if (world_size < 1 || world_size > kMaxRanks) fail("world_size is ", world_size);
    manifest.world_size = static_cast<int>(world_size);
    for (const Json& file : json.at("files")) {
      const auto rank = static_cast<int>(manifest.files.size());
      const std::string want = rank < world_size ? rank_file_name(rank) : kVirtualFile;
      manifest.files.push_back(
          {file.at("name").get<std::string>(),
           {integer(file.at("size")), parse_hex64(file.at("xxh64").get<std::string>())}});
      if (manifest.files.back().name != want || rank > world_size)
        fail("lists '", manifest.files.back().name, "' instead of '", want, "'");
    }
    if (static_cast<int64_t>(manifest.files.size()) != world_size + 1)
      fail("lists ", manifest.files.size(), " files of ", world_size, " ranks");
    return manifest;
  });
}

}  // namespace rodimus
