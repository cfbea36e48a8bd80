#include "train/commands/command.h"

#include <CLI/CLI.hpp>
#include <filesystem>

#include "train/commands/option_checks.h"

namespace rodimus {

Option Option::required() {
  option_->required();
  return *this;
}

Option Option::check(const Check& check) {
  option_->check(CLI::Validator(check.refuse, check.description));
  return *this;
}

Option Option::show_default() {
  option_->capture_default_str();
  return *this;
}

Option Option::show_default(const std::string& text) {
  option_->default_str(text);
  return *this;
}

Option Option::excludes(Option other) {
  option_->excludes(other.option_);
  return *this;
}

Option Option::delimiter(char character) {
  option_->delimiter(character);
  return *this;
}

Option Option::one_at_a_time() {
  option_->allow_extra_args(false);
  return *this;
}

Command::Command(CLI::App& app, const std::string& name, const std::string& description)
    : command_(app.add_subcommand(name, description)) {}

template <class T>
Option Command::option(const std::string& name, T& value, const std::string& help) {
  return Option(*command_->add_option(name, value, help));
}
template Option Command::option(const std::string&, int&, const std::string&);
template Option Command::option(const std::string&, int64_t&, const std::string&);
template Option Command::option(const std::string&, uint64_t&, const std::string&);
template Option Command::option(const std::string&, float&, const std::string&);
template Option Command::option(const std::string&, double&, const std::string&);
template Option Command::option(const std::string&, std::string&, const std::string&);
template Option Command::option(const std::string&, std::filesystem::path&, const std::string&);
template Option Command::option(const std::string&, std::vector<int32_t>&, const std::string&);
template Option Command::option(const std::string&, std::vector<std::string>&, const std::string&);

Option Command::text_option(const std::string& name, std::function<void(const std::string&)> set,
                            const std::vector<std::string>& choices, const std::string& help) {
  return Option(*command_->add_option_function<std::string>(name, set, help))
      .check(one_of(choices));
}

void Command::flag(const std::string& name, bool& value, const std::string& help, bool to) {
  command_->add_flag_callback(
      name, [&value, to] { value = to; }, help);
}

void Command::example(const std::string& text) { command_->footer("Example:\n" + text); }

void Command::run(std::function<void()> body) { command_->callback(std::move(body)); }

}  // namespace rodimus
