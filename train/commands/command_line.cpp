#include "train/commands/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <exception>
#include <ostream>
#include <thread>
#include <vector>

#include "base/words.h"
#include "dist/communicator.h"

namespace rodimus {
namespace {

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options({}))
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

// A better explanation than the parser's of what is wrong with the command line; "" when the
// parser's message will do. `command` is the sub-command that was reached.
std::string explain(const CLI::App& app, const CLI::App* command,
                    const std::vector<std::string>& arguments) {
  if (arguments.empty())
    return "no command; there are " + join_or(command_names(app)) + " (see rodimus --help)";
  if (!command) {
    const std::string& word = arguments.front();
    const bool flag = word.starts_with("-");
    const auto names = flag ? flag_names(app) : command_names(app);
    const std::string near = nearest(word, names);
    return concat("unknown ", flag ? "flag " : "command ", word, "; ",
                  near.empty() ? "there are " + join_or(names) : "did you mean " + near + "?");
  }
  const std::vector<std::string> extras = command->remaining();
  if (extras.empty()) return "";
  const std::string& word = extras.front();
  if (!word.starts_with("-"))
    return concat("unexpected argument ", word, " (see rodimus ", command->get_name(), " --help)");
  const std::string flag = word.substr(0, word.find('='));
  const std::string near = nearest(flag, flag_names(*command));
  return concat("unknown flag ", flag, " of rodimus ", command->get_name(), "; ",
                near.empty() ? "see rodimus " + command->get_name() + " --help"
                             : "did you mean " + near + "?");
}

}  // namespace

void print_error(std::ostream& err, const std::string& message) {
  // One write, because a launcher interleaves the output of several processes.
  err << concat("rodimus: error: ", one_line(message), "\n") << std::flush;
}

void parse_and_run(const std::vector<std::string>& arguments, std::span<const AddCommand> commands,
                   const std::string& version, std::ostream& out) {
  CLI::App app("Trains Rodimus and Rodimus+ language models (arXiv:2410.06577).", "rodimus");
  app.set_version_flag("--version", version, "Print version, commit and features, and exit");
  app.require_subcommand(1);
  app.footer(
      "Example:\n"
      "  rodimus tokenize --input docs/ --out data\n"
      "  mpirun -n 2 rodimus train configs/demo.toml\n"
      "  rodimus generate --checkpoint runs/demo --prompt \"The scheduler\"\n"
      "Every command has --help with an example.");
  for (const AddCommand add : commands) add(app);
  try {
    // The parser takes the last one first.
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {  // --help and --version arrive as exceptions
      app.exit(error, out, out);
      return;
    }
    const auto reached = app.get_subcommands();
    const CLI::App* command = reached.empty() ? nullptr : reached.front();
    const std::string text = explain(app, command, arguments);
    if (!text.empty()) throw UsageError(text);
    throw UsageError(
        concat(one_line(error.what()), " (see rodimus ", command->get_name(), " --help)"));
  }
}

int run_command_line(int argc, const char* const* argv, std::span<const AddCommand> commands,
                     const std::string& version, std::ostream& out, std::ostream& err) {
  bool prints = true;
  try {
    prints = launcher_rank() == 0;
    launched_by_mpi();
  } catch (const Error& error) {  // a malformed launcher variable
    print_error(err, error.what());
    return 1;
  }
  std::ostream silent(nullptr);
  try {
    parse_and_run({argv + std::min(argc, 1), argv + argc}, commands, version,
                  prints ? out : silent);
    return 0;
  } catch (const ExitCode& exit) {  // rank 0 has printed the error
    return exit.code;
  } catch (const UsageError& error) {
    if (prints) {
      print_error(err, error.what());
    } else {
      // The launcher ends all ranks as soon as one exits with an error: rank 0 must have printed
      // by then.
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
    return 2;
  } catch (const std::exception& error) {
    print_error(err, error.what());
    return 1;
  }
}

}  // namespace rodimus
