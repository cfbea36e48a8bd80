// The table of all keys of the configuration. Each is declared once, in config_schema.cpp: name,
// range, meaning, field, and how a change is treated when a run resumes. Parsing, printing, the
// reference (`rodimus train --keys`, docs/config.md) and the comparison at resume all use this
// table.
#pragma once

#include <limits>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "train/config/config.h"

namespace rodimus {

// model.window: an integer, or "full" for kFullWindow.
struct WindowTarget {
  int64_t* value;
};

// Where a value is stored, which also gives its type.
using ConfigTarget = std::variant<int64_t*, int*, uint64_t*, double*, bool*, std::string*,
                                  std::vector<std::string>*, WindowTarget>;

// Numbers that a key accepts.
struct ConfigRange {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;  // the bound itself is excluded

  bool contains(double x) const;
  std::string text() const;  // "at least 1", "in [0, 1)"
};

// What happens if a key's value differs from the one in the checkpoint from which a run resumes.
enum class AtResume : uint8_t {
  said,     // report both values
  rounded,  // report both, and that results may differ by rounding because sums have another order
  silent,   // report nothing: the result cannot depend on it
  other_compute,  // an error, unless --allow-other-compute is given; then report it
  refused,        // an error: the model or the order of the data would change
};

struct ConfigField {
  std::string section, name;
  ConfigTarget target;               // points into the Config passed to config_fields()
  ConfigRange range;                 // numbers only
  std::vector<std::string> choices;  // strings only; empty: anything
  std::string docs;
  AtResume at_resume = AtResume::said;
  // For keys whose value can be written in several ways: values with equal results are the same.
  // Otherwise the values themselves are compared.
  std::string (*meaning)(const ModelConfig&) = nullptr;

  std::string key() const { return section + "." + name; }
  std::string expected() const;    // "an integer of at least 1", for errors and the reference
  std::string toml_value() const;  // the current value; numbers and strings read back exactly
};

// All fields, section by section, in printing order.
std::vector<ConfigField> config_fields(Config& config);
std::span<const std::string> config_sections();

// Values in TOML syntax.
std::string toml_number(double value);             // shortest form that reads back as `value`
std::string toml_string(const std::string& text);  // basic string, escaped

}  // namespace rodimus
