// JSON text in and out. The parser and the printer are the parts of nlohmann/json that take long to
// compile: json.cpp alone instantiates them. Sources that build or read values include
// <nlohmann/json.hpp> as well.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace rodimus {

// One line, or with `indent` blanks per level. What is not UTF-8 becomes U+FFFD: paths and text of
// users need not be UTF-8, JSON must be.
std::string to_text(const nlohmann::json& json, int indent = -1);
std::string to_text(const nlohmann::ordered_json& json, int indent = -1);

// Throws nlohmann::json::parse_error, which names the position.
nlohmann::json parse_json(std::string_view text);

// Of text that may be anything: is_discarded() when it is not JSON. Of a name that an object holds
// twice, the last value counts; `repeated` (may be null) receives the first such name.
nlohmann::json try_parse_json(std::string_view text,
                              std::optional<std::string>* repeated = nullptr);

}  // namespace rodimus
