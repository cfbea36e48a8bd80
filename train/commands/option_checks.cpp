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

// All of `text` as a number without a leading +, base prefix, blanks or trailing text.
template <class T>
std::optional<T> number(const std::string& text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || rest != end) return {};
  return value;
}

std::string refusal(const std::string& text, const std::string& expected) {
  return concat('"', shortened(text), "\" is not ", expected);
}

// `accept` may rewrite the text; the parser converts what it leaves.
template <class Accept>
Check check_that(std::string expected, std::string description, Accept accept) {
  return {[expected = std::move(expected), accept = std::move(accept)](std::string& text) {
            return accept(text) ? std::string() : refusal(text, expected);
          },
          std::move(description)};
}

template <class T>
Check integer_between(T low, T high, const std::string& range) {
  return check_that("an integer " + range, range, [low, high](std::string& text) {
    const auto value = number<T>(text);
    if (!value || *value < low || *value > high) return false;
    text = std::to_string(*value);  // the parser would read a leading 0 as octal
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

Check integer_in(int64_t low, int64_t high) {
  return integer_between(low, high,
                         concat("in [", readable_bound(low), ", ", readable_bound(high), "]"));
}

Check any_seed() {
  return integer_between<uint64_t>(0, std::numeric_limits<uint64_t>::max(), "in [0, 2^64 - 1]");
}

Check number_in(NumberRange range) {
  const std::string text = range_text(range);
  return check_that("a number" + text, text.empty() ? text : text.substr(1),
                    [range](const std::string& given) {
                      const auto value = number<double>(given);
                      return value && std::isfinite(*value) &&
                             (range.above ? *value > range.low : *value >= range.low) &&
                             (range.below ? *value < range.high : *value <= range.high);
                    });
}

Check one_of(std::vector<std::string> choices) {
  std::string listed;
  for (const std::string& choice : choices) listed += (listed.empty() ? "" : ",") + choice;
  return {[choices](std::string& text) {
            if (std::find(choices.begin(), choices.end(), text) != choices.end())
              return std::string();
            const std::string near = nearest(text, choices);
            return refusal(text, join_or(choices)) +
                   (near.empty() ? "" : "; did you mean " + near + "?");
          },
          "{" + listed + "}"};
}

Check not_empty() {
  return {[](std::string& text) { return text.empty() ? "is empty" : std::string(); }, ""};
}

Option add_config_options(Command& command, std::string& config, std::vector<std::string>& set) {
  const Option file = command.option("config", config, "TOML file, see configs/ and docs/config.md")
                          .check(not_empty());
  command.option("--set", set, "Override one key: section.key=value (may be repeated)")
      .one_at_a_time()
      .check(not_empty());
  return file;
}

void add_inference_options(Command& command, std::string& compute, std::string& device,
                           int& threads) {
  command
      .option("--compute", compute,
              "Type of matrix products: run, the one the model was trained in; f32; bf16; auto, "
              "bf16 where the device has bf16 matrix hardware")
      .check(one_of({"run", "f32", "bf16", "auto"}))
      .show_default();
  command.option("--device", device, "Where the model runs")
      .check(one_of({"auto", "cpu", "cuda"}))
      .show_default();
  command
      .option("--threads", threads,
              "Threads per rank; 0: its cores, within the CPU quota of the container")
      .check(integer_in(0, 4096))
      .show_default();
}

}  // namespace rodimus
