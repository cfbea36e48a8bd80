#include "base/json.h"

#include <nlohmann/json.hpp>

namespace rodimus {
namespace {

template <class Json>
std::string text_of(const Json& json, int indent) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace

std::string to_text(const nlohmann::json& json, int indent) { return text_of(json, indent); }
std::string to_text(const nlohmann::ordered_json& json, int indent) {
  return text_of(json, indent);
}

nlohmann::json parse_json(std::string_view text) { return nlohmann::json::parse(text); }

nlohmann::json try_parse_json(std::string_view text) {
  return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace rodimus
