// TOML text -> Config: parsing, checks that involve several keys, and printing. The table of keys
// is in config_schema.cpp.
#include "train/config/config.h"

#include <toml++/toml.h>
#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>

#include "base/error.h"
#include "base/words.h"
#include "layers/blocks.h"
#include "train/config/config_schema.h"
#include "train/schedule.h"

namespace rodimus {
namespace {

// Describes what the file has where something else was expected: `the integer 5`.
std::string found(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "the string " + toml_string(shortened(node.as_string()->get()));
    case toml::node_type::integer:
      return concat("the integer ", node.as_integer()->get());
    case toml::node_type::floating_point:
      return "the floating-point number " + toml_number(node.as_floating_point()->get());
    case toml::node_type::boolean:
      return node.as_boolean()->get() ? "the boolean true" : "the boolean false";
    default:
      return "a date or time";
  }
}

// Whether --set treats `text` as a string only because TOML has no integers that large.
bool beyond_64_bits(const std::string& text) {
  int64_t ignored = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, ignored);
  return error == std::errc::result_out_of_range && rest == end;
}

// Assigns one node to one field. `where` begins every error: "file.toml:3".
struct Assign {
  const ConfigField& field;
  const toml::node& node;
  const std::string& where;

  [[noreturn]] void wrong_type() const {
    if (const auto* text = node.as_string(); text && beyond_64_bits(text->get())) {
      fail(where, ": ", field.key(), " = ", shortened(text->get()), ", expected ", field.expected(),
           " (TOML integers are signed 64-bit)");
    }
    fail(where, ": ", field.key(), " is ", found(node), ", expected ", field.expected());
  }
  void check_range(double value) const {
    if (!field.range.contains(value)) out_of_range();
  }
  [[noreturn]] void out_of_range() const {
    const std::string value = node.is_integer() ? std::to_string(node.as_integer()->get())
                                                : toml_number(*node.value<double>());
    fail(where, ": ", field.key(), " = ", value, ", expected ", field.expected());
  }
  int64_t integer() const {
    if (!node.is_integer()) wrong_type();
    const int64_t value = node.as_integer()->get();
    check_range(static_cast<double>(value));
    return value;
  }
  std::string text() const {
    if (!node.is_string()) wrong_type();
    return node.as_string()->get();
  }
  [[noreturn]] void unknown_choice(const std::string& value,
                                   std::span<const std::string> choices) const {
    const std::string near = nearest(value, choices);
    fail(where, ": ", field.key(), " = ", toml_string(shortened(value)), ", expected ",
         field.expected(), near.empty() ? "" : "; did you mean \"" + near + "\"?");
  }

  void operator()(int64_t* to) const { *to = integer(); }
  void operator()(int* to) const { *to = narrow<int>(integer()); }
  void operator()(uint64_t* to) const { *to = narrow<uint64_t>(integer()); }
  void operator()(double* to) const {
    if (!node.is_number()) wrong_type();
    const double value = *node.value<double>();
    check_range(value);
    *to = value;
  }
  void operator()(bool* to) const {
    if (!node.is_boolean()) wrong_type();
    *to = node.as_boolean()->get();
  }
  void operator()(std::string* to) const {
    const std::string value = text();
    const auto& choices = field.choices;
    if (!choices.empty() && std::find(choices.begin(), choices.end(), value) == choices.end())
      unknown_choice(value, choices);
    *to = value;
  }
  void operator()(std::vector<std::string>* to) const {
    if (node.is_string()) {  // a list with one element may be written without brackets
      *to = {text()};
      return;
    }
    if (!node.is_array()) wrong_type();
    std::vector<std::string> values;
    for (const toml::node& element : *node.as_array()) {
      if (!element.is_string()) {
        fail(where, ": ", field.key(), "[", values.size(), "] is ", found(element), ", expected ",
             field.expected());
      }
      values.push_back(element.as_string()->get());
    }
    *to = std::move(values);
  }
  void operator()(WindowTarget to) const {
    if (node.is_string()) {
      if (text() != "full") unknown_choice(text(), std::vector<std::string>{"full"});
      *to.value = kFullWindow;
      return;
    }
    if (!node.is_integer()) wrong_type();
    // 0 and -1 mean "no window" in other programs, but could also mean one key or none: require the
    // word.
    const int64_t value = node.as_integer()->get();
    if (value < 1 || value > kMaxSize) out_of_range();
    *to.value = value;
  }
};

[[noreturn]] void unknown_key(const std::string& where, const std::string& section,
                              const std::string& name, const std::vector<ConfigField>& fields) {
  std::vector<std::string> here, everywhere;
  for (const ConfigField& field : fields) {
    if (field.section == section) here.push_back(field.name);
    everywhere.push_back(field.key());
    if (field.name == name) {
      fail(where, ": unknown key ", section, ".", name, "; did you mean ", field.key(), "?");
    }
  }
  std::string near = nearest(name, here);
  if (!near.empty()) near = section + "." + near;
  if (near.empty()) near = nearest(section + "." + name, everywhere);
  fail(where, ": unknown key ", section, ".", name,
       near.empty() ? concat("; [", section, "] has ", join_or(here))
                    : "; did you mean " + near + "?");
}

[[noreturn]] void unknown_section(const std::string& where, const std::string& name,
                                  const toml::node& node, const std::vector<ConfigField>& fields) {
  const std::string near = nearest(name, config_sections());
  if (node.is_table()) {
    fail(where, ": unknown section [", name, "]; ",
         near.empty() ? "there are " + join_or(config_sections()) : "did you mean [" + near + "]?");
  }
  for (const ConfigField& field : fields) {
    if (field.name == name) {
      fail(where, ": ", name, " is outside a section; put it below [", field.section, "]");
    }
  }
  fail(where, ": unknown key ", name, " outside a section; sections are ",
       join_or(config_sections()));
}

void assign(const std::vector<ConfigField>& fields, const std::string& where,
            const std::string& section, const std::string& name, const toml::node& value) {
  for (const ConfigField& field : fields) {
    if (field.section != section || field.name != name) continue;
    std::visit(Assign{field, value, where}, field.target);
    return;
  }
  unknown_key(where, section, name, fields);
}

void apply_table(const toml::table& table, const std::string& origin,
                 const std::vector<ConfigField>& fields) {
  const auto sections = config_sections();
  for (const auto& [section_key, section_node] : table) {
    const std::string section(section_key.str());
    const auto at = [&](const toml::source_position& position) {
      return concat(origin, ":", position.line);
    };
    if (std::find(sections.begin(), sections.end(), section) == sections.end())
      unknown_section(at(section_key.source().begin), section, section_node, fields);
    if (!section_node.is_table()) {
      fail(at(section_key.source().begin), ": ", section, " is ", found(section_node),
           ", expected a section [", section, "]");
    }
    for (const auto& [key, value] : *section_node.as_table()) {
      assign(fields, at(key.source().begin), section, std::string(key.str()), value);
    }
  }
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// The table {value = TEXT} if TEXT is a single TOML value, else nullopt.
std::optional<toml::table> as_toml_value(const std::string& text) {
  if (text.find('\n') != std::string::npos) return {};
  try {
    return toml::parse("value = " + text);
  } catch (const toml::parse_error&) {
    return {};
  }
}

void apply_override(const std::string& argument, const std::vector<ConfigField>& fields) {
  const std::string where = "--set " + shortened(argument);
  const size_t equals = argument.find('=');
  const std::string key = trimmed(argument.substr(0, equals));
  const size_t dot = key.find('.');
  if (equals == std::string::npos || dot == std::string::npos)
    fail(where, ": expected section.key=value, as in --set run.steps=1000");
  const std::string section = key.substr(0, dot), name = key.substr(dot + 1);
  const std::string text = trimmed(argument.substr(equals + 1));

  toml::table table;
  if (auto parsed = as_toml_value(text)) table = std::move(*parsed);
  // Shells strip quotes: whatever is not a TOML value is a string, and so is any value of a string
  // key.
  bool string_key = false;
  for (const ConfigField& field : fields)
    if (field.key() == key) string_key = std::holds_alternative<std::string*>(field.target);
  if (table.empty() || (string_key && !table["value"].is_string()))
    table.insert_or_assign("value", text);

  const auto sections = config_sections();
  if (std::find(sections.begin(), sections.end(), section) == sections.end())
    unknown_section(where, section, table, fields);
  assign(fields, where, section, name, *table.get("value"));
}

// Positions in the data are 64 bits wide.
void check_total(const Config& config, const std::string& origin) {
  constexpr double kMost = 1e18;
  const double tokens = static_cast<double>(config.run.steps) *
                        static_cast<double>(config.run.global_batch) *
                        static_cast<double>(config.data.seq_len);
  if (tokens <= kMost) return;
  fail(origin, ": run.steps * run.global_batch * data.seq_len = ", config.run.steps, " * ",
       config.run.global_batch, " * ", config.data.seq_len, " tokens; at most ", kMost,
       " are possible");
}

// Checks that involve several keys, or keys that may be missing.
void check_whole(const Config& config, const std::string& origin) {
  const OptimizerConfig& optimizer = config.optimizer;
  if (config.model.d_model == 0) fail(origin, ": model.d_model is missing; set it below [model]");
  if (config.model.n_layers == 0) fail(origin, ": model.n_layers is missing; set it below [model]");
  if (block_type(config.model.block).reads("n_heads") && config.model.n_heads == 0) {
    fail(origin, ": model.n_heads is missing; set it below [model] (a divisor of d_model), or ",
         "block = \"rodimus\" for a model without attention");
  }
  ModelConfig model = config.model;
  if (model.vocab_size == 0) model.vocab_size = 1;  // the tokenizer supplies it later
  try {
    model.validate();
  } catch (const Error& error) {
    fail(origin, ": ", error.what());
  }
  if (optimizer.min_lr > optimizer.lr) {
    fail(origin, ": optimizer.min_lr = ", toml_number(optimizer.min_lr),
         " is above optimizer.lr = ", toml_number(optimizer.lr),
         "; lower min_lr, or leave it out: its default is a tenth of lr");
  }
  const int64_t decay_steps = wsd_decay_steps(optimizer, config.run.steps);
  if (optimizer.schedule == "wsd" && optimizer.warmup_steps + decay_steps > config.run.steps) {
    fail(origin, ": optimizer.warmup_steps + optimizer.decay_steps = ", optimizer.warmup_steps,
         " + ", decay_steps, optimizer.decay_steps == 0 ? " (a tenth of the steps)" : "",
         " is more than run.steps = ", config.run.steps, "; warm-up and decay must not overlap");
  }
  check_total(config, origin);
  if (config.run.output.empty()) fail(origin, ": run.output is empty; name a folder");
}

// Placeholder for the default of optimizer.min_lr until lr is known.
constexpr double kNotGiven = -1;

std::string sections_as_toml(const std::vector<ConfigField>& fields,
                             std::string (*line)(const ConfigField&)) {
  std::string text, section;
  for (const ConfigField& field : fields) {
    if (field.section != section) {
      text += (section.empty() ? "[" : "\n[") + field.section + "]\n";
      section = field.section;
    }
    text += line(field);
  }
  return text;
}

// What the reference adds to keys that cannot freely change when a run resumes.
const char* fixed_text(AtResume at_resume) {
  if (at_resume == AtResume::refused) return "; fixed for a run";
  if (at_resume == AtResume::other_compute)
    return "; fixed for a run, unless --allow-other-compute is given";
  return "";
}

}  // namespace

Config parse_config(const std::string& toml, const std::string& origin,
                    const std::vector<std::string>& overrides) {
  Config config;
  config.optimizer.min_lr = kNotGiven;
  const std::vector<ConfigField> fields = config_fields(config);
  try {
    apply_table(toml::parse(toml), origin, fields);
  } catch (const toml::parse_error& error) {
    fail(origin, ":", error.source().begin.line, ": ", one_line(std::string(error.description())));
  }
  for (const std::string& argument : overrides) apply_override(argument, fields);
  if (config.optimizer.min_lr == kNotGiven) config.optimizer.min_lr = config.optimizer.lr / 10;
  check_whole(config, origin);
  return config;
}

Config load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored))
    fail(file.native(), " is a folder; expected a TOML file");
  std::ifstream in(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in) fail("cannot read the configuration ", file.native(), "; is the path right?");
  return parse_config(text, file.native(), overrides);
}

std::string to_toml(const Config& config) {
  Config copy = config;
  return sections_as_toml(config_fields(copy), [](const ConfigField& field) {
    return field.name + " = " + field.toml_value() + "\n";
  });
}

std::string config_reference() {
  Config defaults;
  defaults.optimizer.min_lr = kNotGiven;
  return sections_as_toml(config_fields(defaults), [](const ConfigField& field) {
    // A default outside the range means there is none: a required size, or a value derived from
    // another key.
    const auto* size = std::get_if<int64_t*>(&field.target);
    const auto* number = std::get_if<double*>(&field.target);
    const bool none = (size && !field.range.contains(static_cast<double>(**size))) ||
                      (number && !field.range.contains(**number));
    return concat("# ", field.docs, "\n# ", field.expected(), fixed_text(field.at_resume), "\n",
                  none ? "# " : "", field.name, " = ", none ? "..." : field.toml_value(), "\n");
  });
}

}  // namespace rodimus
