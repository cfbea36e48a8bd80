#include "train/commands/option_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/words.h"

namespace rodimus {
namespace {

// All of `text` as a number without sign +, base prefix, blanks or anything after it.
template <class T>
std::optional<T> number(const std::string& text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || rest != end) return {};
  return value;
}

std::string refusal(const std::string& text, const std::string& expected) {
  constexpr size_t kLongest = 60;
  return concat('"', one_line(text.size() <= kLongest ? text : text.substr(0, kLongest) + "..."),
                "\" is not ", expected);
}

// `accept` may rewrite the text; the parser converts what it leaves.
template <class Accept>
CLI::Validator validator(std::string expected, std::string description, Accept accept) {
  return CLI::Validator(
      [expected = std::move(expected), accept = std::move(accept)](std::string& text) {
        return accept(text) ? std::string() : refusal(text, expected);
      },
      std::move(description));
}

template <class T>
CLI::Validator integer_between(T low, T high, const std::string& range) {
  return validator("an integer " + range, range, [low, high](std::string& text) {
    const auto value = number<T>(text);
    if (!value || *value < low || *value > high) return false;
    text = std::to_string(*value);  // the parser would take a leading 0 for base 8
    return true;
  });
}

std::string range_text(const NumberRange& range) {
  constexpr double kMost = std::numeric_limits<double>::max();
  if (range.low == -kMost && range.high == kMost) return "";
  if (range.high == kMost)
    return fmt::format(" {} {}", range.above ? "above" : "of at least", range.low);
  return fmt::format(" in {}{}, {}{}", range.above ? '(' : '[', range.low, range.high,
                     range.below ? ')' : ']');
}

}  // namespace

std::string readable_bound(int64_t bound) {
  if (bound == kMostInt64) return "2^63 - 1";
  if (bound == INT32_MAX) return "2^31 - 1";
  return std::to_string(bound);
}

CLI::Validator integer_in(int64_t low, int64_t high) {
  return integer_between(low, high,
                         concat("in [", readable_bound(low), ", ", readable_bound(high), "]"));
}

CLI::Validator any_seed() {
  return integer_between<uint64_t>(0, std::numeric_limits<uint64_t>::max(), "in [0, 2^64 - 1]");
}

CLI::Validator number_in(NumberRange range) {
  const std::string text = range_text(range);
  return validator("a number" + text, text.empty() ? text : text.substr(1),
                   [range](const std::string& given) {
                     const auto value = number<double>(given);
                     return value && std::isfinite(*value) &&
                            (range.above ? *value > range.low : *value >= range.low) &&
                            (range.below ? *value < range.high : *value <= range.high);
                   });
}

CLI::Validator one_of(std::vector<std::string> choices) {
  std::string listed;
  for (const std::string& choice : choices) listed += (listed.empty() ? "" : ",") + choice;
  return CLI::Validator(
      [choices](std::string& text) {
        if (std::find(choices.begin(), choices.end(), text) != choices.end()) return std::string();
        const std::string near = nearest(text, choices);
        return refusal(text, join_or(choices)) +
               (near.empty() ? "" : "; did you mean " + near + "?");
      },
      "{" + listed + "}");
}

CLI::Validator not_empty() {
  return CLI::Validator([](std::string& text) { return text.empty() ? "is empty" : std::string(); },
                        "");
}

CLI::Option* add_config_options(CLI::App& command, std::string& config,
                                std::vector<std::string>& set) {
  CLI::Option* file =
      command.add_option("config", config, "TOML file, see configs/ and docs/config.md")
          ->check(not_empty());
  command.add_option("--set", set, "Override one key: section.key=value (may be repeated)")
      ->allow_extra_args(false)
      ->check(not_empty());
  return file;
}

}  // namespace rodimus
