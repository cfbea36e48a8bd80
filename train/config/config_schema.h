// The table of all keys of the configuration: what parsing, printing and the reference walk over.
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
                                  std::vector<std::string>*, BlockType*, WindowTarget>;

// Numbers that a key accepts.
struct ConfigRange {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;  // the bound itself is excluded

  bool contains(double x) const;
  std::string text() const;  // "at least 1", "in [0, 1)"
};

struct ConfigField {
  std::string section, name;
  ConfigTarget target;               // points into the Config that config_fields() was given
  ConfigRange range;                 // numbers only
  std::vector<std::string> choices;  // strings only; empty: anything
  std::string docs;

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
std::string toml_value(BlockType block);

}  // namespace rodimus
