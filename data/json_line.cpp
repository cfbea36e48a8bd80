#include "data/json_line.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <system_error>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace rodimus {
namespace {

// The code unit of an escape "\uXXXX" at the start of `text`; -1 if there is none.
int32_t escaped_unit(std::string_view text) {
  if (!text.starts_with("\\u") || text.size() < 6) return -1;
  uint32_t unit = 0;
  const auto [end, error] = std::from_chars(text.data() + 2, text.data() + 6, unit, 16);
  return error == std::errc() && end == text.data() + 6 ? static_cast<int32_t>(unit) : -1;
}

bool is_high(int32_t unit) { return unit >= 0xd800 && unit < 0xdc00; }
bool is_low(int32_t unit) { return unit >= 0xdc00 && unit < 0xe000; }

// `line` with escapes of unpaired UTF-16 surrogates replaced by `with`.
std::string replace_unpaired(std::string_view line, std::string_view with) {
  std::string out;
  while (!line.empty()) {
    const int32_t unit = escaped_unit(line);
    size_t length = line.front() != '\\' ? line.find('\\') : unit >= 0 ? 6 : 2;
    length = std::min(length, line.size());
    const bool paired = is_high(unit) && is_low(escaped_unit(line.substr(length)));
    if (paired) length = 12;
    if (!paired && (is_high(unit) || is_low(unit))) {
      out += with;
    } else {
      out += line.substr(0, length);
    }
    line.remove_prefix(length);
  }
  return out;
}

JsonText text_of(const std::string& line, const std::string& field) {
  const nlohmann::json json = try_parse_json(line);
  if (json.is_discarded()) return {.text = {}, .problem = "is not JSON"};
  if (!json.is_object()) return {.text = {}, .problem = "is not a JSON object"};
  const auto found = json.find(field);
  if (found == json.end()) return {.text = {}, .problem = "has no field '" + field + "'"};
  if (found->is_null()) return {.text = {}, .problem = "has null in field '" + field + "'"};
  if (!found->is_string()) return {.text = {}, .problem = "has no text in field '" + field + "'"};
  return {.text = found->get<std::string>()};
}

}  // namespace

JsonText json_text(const std::string& line, const std::string& field) {
  JsonText result = text_of(line, field);
  if (result.problem.empty()) return result;
  // Programs that cut text inside a UTF-16 pair write such escapes; JSON allows them, but UTF-8
  // cannot represent them.
  const std::string repaired = replace_unpaired(line, "\\ufffd");
  if (repaired == line) return result;
  result = text_of(repaired, field);
  // In other fields they do not matter.
  if (result.problem.empty()) {
    result.unpaired_surrogate = result.text != text_of(replace_unpaired(line, ""), field).text;
  }
  return result;
}

}  // namespace rodimus
