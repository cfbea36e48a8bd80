// How a command declares itself and its options. The parser behind it, CLI11, takes longer to
// compile than any command: only command.cpp and
// command_line.cpp include it.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace rodimus {

// What an option accepts. The check may rewrite the text that is then converted; it returns "" or
// why the text is refused. `description` follows the option's type in --help.
struct Check {
  std::function<std::string(std::string& text)> refuse;
  std::string description;
  std::string operator()(std::string& text) const { return refuse(text); }
};

// One declared option; each call returns it for the next one.
class Option {
 public:
  explicit Option(CLI::Option& option) : option_(&option) {}
  Option required();
  Option check(const Check& check);  // every value given has to pass
  Option show_default();             // --help shows the variable's current value
  Option show_default(const std::string& text);
  Option excludes(Option other);     // an error to give both
  Option delimiter(char character);  // one argument holds several values
  Option one_at_a_time();            // each --name takes one argument, not several

 private:
  CLI::Option* option_;
};

// A sub-command. Variables given to it must live until the program ends: hold them by a shared_ptr
// captured by the function given to run().
class Command {
 public:
  Command(CLI::App& app, const std::string& name, const std::string& description);

  // "--name VALUE" or, without dashes, a positional argument. T is one of the types that
  // command.cpp instantiates.
  template <class T>
  Option option(const std::string& name, T& value, const std::string& help);

  // One of a few named values.
  template <class T>
  Option choice(const std::string& name, T& value,
                const std::vector<std::pair<std::string, T>>& choices, const std::string& help) {
    std::vector<std::string> names;
    std::string now;
    for (const auto& [text, meaning] : choices) {
      names.push_back(text);
      if (meaning == value) now = text;
    }
    const auto set = [&value, choices](const std::string& given) {
      for (const auto& [text, meaning] : choices)
        if (text == given) value = meaning;
    };
    return text_option(name, set, names, help).show_default(now);
  }

  // --name sets `value` to `to`.
  void flag(const std::string& name, bool& value, const std::string& help, bool to = true);

  void example(const std::string& text);  // ends --help
  void run(std::function<void()> body);

 private:
  Option text_option(const std::string& name, std::function<void(const std::string&)> set,
                     const std::vector<std::string>& choices, const std::string& help);
  CLI::App* command_;
};

using AddCommand = void (*)(CLI::App& app);

// Thrown by a command that has already printed all there is to say: only the exit code is left.
struct ExitCode : std::exception {
  explicit ExitCode(int value) : code(value) {}
  int code;
};

}  // namespace rodimus
