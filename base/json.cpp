#include "base/json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

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

nlohmann::json try_parse_json(std::string_view text, std::optional<std::string>* repeated) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::set<std::string>>
      open;  // the names seen so far in each object around this place
  const auto watch = [&](int, Event event, nlohmann::json& value) {
    if (event == Event::object_start) open.emplace_back();
    if (event == Event::object_end) open.pop_back();
    if (event == Event::key) {
      const auto& name = value.get_ref<const std::string&>();
      if (!open.back().insert(name).second && !*repeated) *repeated = name;
    }
    return true;
  };
  if (!repeated) return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  return nlohmann::json::parse(text, watch, /*allow_exceptions=*/false);
}

}  // namespace rodimus
