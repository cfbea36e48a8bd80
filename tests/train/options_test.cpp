// Every option of every command, every configuration key and every launcher variable is given
// invalid values: the error is one line that names it, the value and what was expected.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <set>
#include <sstream>

#include "dist/communicator.h"
#include "train/commands/command_line.h"
#include "train/commands/commands.h"
#include "train/commands/option_checks.h"
#include "train/config/config_schema.h"

namespace rodimus {
namespace {

struct Outcome {
  int code;
  std::string out, err;
};

Outcome run(const std::vector<std::string>& words) {
  std::vector<const char*> arguments = {"rodimus"};
  for (const std::string& word : words) arguments.push_back(word.c_str());
  std::ostringstream out, err;
  const int code = run_command_line(static_cast<int>(arguments.size()), arguments.data(), kCommands,
                                    "rodimus", out, err);
  return {code, out.str(), err.str()};
}

const std::string kLong(310, '9');

enum class Kind { integer, number, choice, text };

// From an option's help text: INT:in [0, 5]  FLOAT:above 0  TEXT:{a,b}  TEXT
Kind kind_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  if (type.find("INT") != std::string::npos) return Kind::integer;
  if (type.find("FLOAT") != std::string::npos) return Kind::number;
  return type.find('{') == std::string::npos ? Kind::text : Kind::choice;
}

std::vector<std::string> bad_values(Kind kind) {
  switch (kind) {
    case Kind::integer:
      return {"",
              "-1",
              "-9223372036854775809",
              "18446744073709551616",
              kLong,
              "nan",
              "inf",
              "x",
              "1x",
              "0x10",
              "+1",
              " 1",
              "1 ",
              "1.5",
              "1e3"};
    case Kind::number:
      return {"",  "nan", "-nan", "inf",   "-inf", "1e999", "-" + kLong + "9",
              "x", "1x",  "0.5 ", "0x1p3", "+1",   "1,5"};
    case Kind::choice:
      return {"", "zzz", "AUTO ", kLong};
    case Kind::text:
      return {""};
  }
  return {};
}

// Not an error: a prompt may be empty.
const std::set<std::string> kFree = {"generate --prompt"};

TEST(Options, EveryOneOfEveryCommandRefusesBadValues) {
  CLI::App app("", "rodimus");
  for (const auto add : kCommands) add(app);
  int options = 0, flags = 0;
  for (const CLI::App* command : app.get_subcommands({})) {
    for (const CLI::Option* option : command->get_options()) {
      const std::string name = option->get_name(), place = command->get_name() + " " + name;
      if (name == "--help" || kFree.contains(place)) continue;
      if (option->get_items_expected_max() == 0) {
        ++flags;
        const Outcome outcome = run({command->get_name(), name + "=maybe"});
        EXPECT_EQ(outcome.code, 2) << place;
        EXPECT_NE(outcome.err.find(name), std::string::npos) << outcome.err;
        EXPECT_NE(outcome.err.find("maybe"), std::string::npos) << outcome.err;
        continue;
      }
      ++options;
      const Kind kind = kind_of(*option);
      for (const std::string& value : bad_values(kind)) {
        std::vector<std::string> words = {command->get_name()};
        if (!option->get_positional()) words.push_back(name);
        words.push_back(value);
        const Outcome outcome = run(words);
        const std::string& line = outcome.err;
        SCOPED_TRACE(place + " \"" + value + "\": " + line);
        EXPECT_EQ(outcome.code, 2);
        EXPECT_EQ(outcome.out, "");
        EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
        EXPECT_LT(line.size(), 250u);
        EXPECT_EQ(line.find("rodimus: error: " + name + ": "), 0u);
        if (kind == Kind::text) {
          EXPECT_NE(line.find("is empty"), std::string::npos);
        } else {
          EXPECT_NE(line.find("\"" + value.substr(0, 60)), std::string::npos);
          EXPECT_NE(line.find("\" is not "), std::string::npos);
        }
      }
    }
  }
  // Guards against a test that visits nothing.
  EXPECT_GE(options, 40);
  EXPECT_GE(flags, 8);
}

TEST(Options, BoundsBelongToTheRange) {
  const auto accepts = [](const Check& validator, std::string text) {
    return validator(text).empty();
  };
  const Check small = integer_in(-1, 3);
  for (const char* text : {"-1", "0", "3", "003"}) EXPECT_TRUE(accepts(small, text)) << text;
  for (const char* text : {"-2", "4"}) EXPECT_FALSE(accepts(small, text)) << text;
  EXPECT_TRUE(accepts(any_seed(), "18446744073709551615"));
  EXPECT_TRUE(accepts(integer_in(0), "9223372036854775807"));
  EXPECT_FALSE(accepts(integer_in(0), "9223372036854775808"));
  const Check open = number_in({.low = 0, .high = 1, .above = true, .below = true});
  for (const char* text : {"1e-300", "0.5", "0.999"}) EXPECT_TRUE(accepts(open, text)) << text;
  for (const char* text : {"0", "1", "-0.0"}) EXPECT_FALSE(accepts(open, text)) << text;
  std::string octal = "010";
  EXPECT_EQ(integer_in(0)(octal), "");
  EXPECT_EQ(octal, "10") << "the parser behind would read base 8";
}

TEST(Options, RangesAreReadable) {
  std::string value = "-1";
  EXPECT_EQ(any_seed()(value), "\"-1\" is not an integer in [0, 2^64 - 1]");
  EXPECT_EQ(integer_in(1)(value), "\"-1\" is not an integer in [1, 2^63 - 1]");
  EXPECT_EQ(number_in({.low = 0, .above = true})(value), "\"-1\" is not a number above 0");
  EXPECT_EQ(number_in({.low = 0})(value), "\"-1\" is not a number of at least 0");
  EXPECT_EQ(number_in({.low = 0, .high = 1, .below = true})(value),
            "\"-1\" is not a number in [0, 1)");
  value = "atuo";
  EXPECT_EQ(one_of({"auto", "cpu"})(value), "\"atuo\" is not auto or cpu; did you mean auto?");
}

TEST(ConfigKeys, EveryOneRefusesBadValues) {
  Config config;
  const std::string file = "[model]\nd_model = 64\nn_layers = 2\nn_heads = 2\n";
  int keys = 0;
  for (const ConfigField& field : config_fields(config)) {
    // Any text is a valid string or one-element list; what it names is checked when it is opened.
    const bool text = std::holds_alternative<std::vector<std::string>*>(field.target) ||
                      (std::holds_alternative<std::string*>(field.target) && field.choices.empty());
    if (text) continue;
    ++keys;
    for (const std::string& value :
         {std::string(), std::string("-2"), std::string("nan"), std::string("-nan"),
          std::string("inf"), std::string("1e999"), std::string("-1e999"), std::string("1x"),
          std::string("18446744073709551615"), std::string("9223372036854775808"),
          std::string("-9223372036854775809"), kLong, std::string("[1]")}) {
      const bool number = std::holds_alternative<double*>(field.target);
      // For numbers, a large integer is valid.
      if (number && value.find_first_not_of("0123456789") == std::string::npos && !value.empty() &&
          value.size() < 300) {
        continue;
      }
      std::string line;
      try {
        parse_config(file, "c.toml", {field.key() + "=" + value});
      } catch (const Error& error) {
        line = error.what();
      }
      SCOPED_TRACE(field.key() + "=" + value + ": " + line);
      EXPECT_NE(line, "");
      EXPECT_EQ(line.find('\n'), std::string::npos);
      EXPECT_LT(line.size(), 300u);
      EXPECT_NE(line.find(field.key()), std::string::npos);
      EXPECT_NE(line.find("expected "), std::string::npos);
    }
  }
  EXPECT_GE(keys, 35);
}

TEST(ConfigKeys, ASeedBeyondTomlIsSaid) {
  const std::string model = "[model]\nd_model = 64\nn_layers = 2\nn_heads = 2\n";
  const auto error_of = [&](const std::string& file, const std::vector<std::string>& set) {
    try {
      parse_config(file, "c.toml", set);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(error_of(model, {"run.seed=9223372036854775807"}), "");
  EXPECT_EQ(error_of(model, {"run.seed=18446744073709551615"}),
            "--set run.seed=18446744073709551615: run.seed = 18446744073709551615, expected an "
            "integer in [0, 2^63 - 1] (TOML integers are signed 64-bit)");
  const std::string in_file = error_of(model + "[run]\nseed = 18446744073709551615\n", {});
  EXPECT_NE(in_file.find("c.toml:6"), std::string::npos) << in_file;
  EXPECT_NE(in_file.find("18446744073709551615"), std::string::npos) << in_file;
}

TEST(Environment, VariablesOfLaunchersMustBeNumbers) {
  for (const char* name :
       {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS",
        "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    for (const char* value : {"-1", "2x", "many", "1e3", "99999999999", " 1", "nan"}) {
      setenv(name, value, 1);
      const Outcome outcome = run({"--version"});
      unsetenv(name);
      EXPECT_EQ(outcome.code, 1) << name << "=" << value;
      EXPECT_NE(outcome.err.find(std::string(name) + " is \"" + value + "\", expected an integer"),
                std::string::npos)
          << outcome.err;
    }
    setenv(name, "", 1);  // like a variable that the shell has cleared
    EXPECT_EQ(run({"--version"}).code, 0) << name;
    unsetenv(name);
  }
}

}  // namespace
}  // namespace rodimus
