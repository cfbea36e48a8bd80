#include "data/round_trip.h"

#include <algorithm>
#include <cstdint>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"

namespace rodimus {
namespace {

constexpr size_t kBytesBefore = 16, kBytesAfter = 24;

bool starts_character(std::string_view text, size_t at) {
  return at >= text.size() || (static_cast<uint8_t>(text[at]) & 0xc0) != 0x80;
}

std::string excerpt(std::string_view text, size_t begin, size_t end) {
  end = std::min(end, text.size());
  while (!starts_character(text, end)) ++end;
  const nlohmann::json quoted = std::string(text.substr(begin, end - begin));
  return to_text(quoted);
}

}  // namespace

std::string describe_change(std::string_view text, std::string_view decoded) {
  const auto [a, b] = std::mismatch(text.begin(), text.end(), decoded.begin(), decoded.end());
  const auto at = static_cast<size_t>(a - text.begin());
  size_t begin = at - std::min(at, kBytesBefore);
  while (!starts_character(text, begin)) --begin;
  return concat(excerpt(text, begin, at + kBytesAfter), " becomes ",
                excerpt(decoded, begin, at + kBytesAfter));
}

}  // namespace rodimus
