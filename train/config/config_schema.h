// The table of all keys of the configuration. Each is declared once, in config_schema.cpp: name,
// range, meaning, field, and what becomes of a change when a run resumes. Parsing, printing, the
// reference (`rodimus train --keys`, docs/config.md) and the comparison at resume walk over it.
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

// Where a value goes, and thereby its type.
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

// What becomes of a key that has another value than in the checkpoint from which a run resumes.
enum class AtResume : uint8_t {
  said,           // a line names both values
  rounded,        // it does, and says that results may differ by rounding: sums have another order
  silent,         // nothing: the result cannot depend on it
  other_compute,  // an error, unless --allow-other-compute is given; then said
  refused,        // an error: the model or the order of the data would be another
};

struct ConfigField {
  std::string section, name;
  ConfigTarget target;               // points into the Config that config_fields() was given
  ConfigRange range;                 // numbers only
  std::vector<std::string> choices;  // strings only; empty: anything
  std::string docs;
  AtResume at_resume = AtResume::said;
  // For keys that can be written in several ways: equal results mean the same. Else the value
  // counts.
  std::string (*meaning)(const ModelConfig&) = nullptr;

  std::string key() const { return section + "." + name; }
  std::string expected() const;    // "an integer of at least 1", for errors and the reference
  std::string toml_value() const;  // the present value; numbers and strings read back exactly
};

// All fields, section by section in the order in which they are printed.
std::vector<ConfigField> config_fields(Config& config);
std::span<const std::string> config_sections();

// Values in TOML syntax.
std::string toml_number(double value);             // shortest form that reads back as `value`
std::string toml_string(const std::string& text);  // basic string, escaped

}  // namespace rodimus
