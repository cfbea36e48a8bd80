#include "data/shard_info.h"

#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "base/checksum.h"
#include "base/error.h"
#include "base/json.h"

namespace rodimus {
namespace {

constexpr int kVersion = 1;
constexpr const char* kFormat = "rodimus shard";
constexpr const char* kChecksum = "xxh64";

// Objects are sorted by key, so equal values dump to equal text.
std::string checksum_of(nlohmann::json json) {
  json.erase(kChecksum);
  return hex64(xxh64(to_text(json)));
}

}  // namespace

std::string to_json(const ShardInfo& info) {
  nlohmann::json json = {{"format", kFormat},
                         {"version", kVersion},
                         {"tokenizer_hash", info.tokenizer_hash},
                         {"vocab_size", info.vocab_size},
                         {"eos_id", info.eos_id},
                         {"documents", info.documents},
                         {"tokens", info.tokens},
                         {"text_bytes", info.text_bytes},
                         {"bin_xxh64", hex64(info.bin_xxh64)},
                         {"idx_xxh64", hex64(info.idx_xxh64)}};
  // Left out when unknown, as in the files of earlier versions.
  if (info.text_words >= 0) json["text_words"] = info.text_words;
  if (info.lossless) json["lossless"] = *info.lossless;
  json[kChecksum] = checksum_of(json);
  return to_text(json, 2) + "\n";
}

std::optional<ShardInfo> read_shard_info(const std::filesystem::path& file) {
  if (std::error_code ignored; !std::filesystem::exists(file, ignored)) return std::nullopt;
  std::ifstream stream(file, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(stream), {});
  if (!stream) fail("cannot read ", file.native());
  try {
    const nlohmann::json json = parse_json(text);
    if (json.at("format") != kFormat) fail("not the description of a rodimus shard");
    if (json.at("version") != kVersion) {
      fail("version ", to_text(json.at("version")), ", this program knows ", kVersion);
    }
    if (json.at(kChecksum) != checksum_of(json)) fail("its own checksum does not match");
    const auto hash = [&json](const char* key) {
      return static_cast<uint64_t>(std::stoull(json.at(key).get<std::string>(), nullptr, 16));
    };
    return ShardInfo{.tokenizer_hash = json.at("tokenizer_hash"),
                     .vocab_size = json.at("vocab_size"),
                     .eos_id = json.at("eos_id"),
                     .documents = json.at("documents"),
                     .tokens = json.at("tokens"),
                     .text_bytes = json.at("text_bytes"),
                     .text_words = json.value("text_words", int64_t{-1}),
                     .lossless = json.contains("lossless")
                                     ? std::optional(json.at("lossless").get<bool>())
                                     : std::nullopt,
                     .bin_xxh64 = hash("bin_xxh64"),
                     .idx_xxh64 = hash("idx_xxh64")};
  } catch (const std::exception& error) {
    fail(file.native(), ": ", error.what(),
         "; the file is damaged: tokenize again (or delete it to read the shard unchecked)");
  }
}

}  // namespace rodimus
