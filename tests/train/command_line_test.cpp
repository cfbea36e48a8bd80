#include "train/commands/command_line.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <sstream>
#include <vector>

#include "base/error.h"

namespace rodimus {
namespace {

void add_train(CLI::App& app) {
  Command command(app, "train", "Train a model");
  struct Arguments {
    int steps = 0;
    bool quick = false;
  };
  auto arguments = std::make_shared<Arguments>();
  command.option("--steps", arguments->steps, "how many").required();
  command.flag("--quick", arguments->quick, "less");
  command.example("  rodimus train --steps 3");
  command.run([arguments] {
    if (arguments->steps == 7) fail("seven\nis too many");
    if (arguments->steps == 8) throw std::bad_alloc();
  });
}
void add_eval(CLI::App& app) { Command(app, "eval", "Evaluate a model"); }

struct Outcome {
  int code;
  std::string out, err;
};

Outcome run(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "rodimus");
  const std::array<AddCommand, 2> commands = {add_train, add_eval};
  std::ostringstream out, err;
  const int code = run_command_line(static_cast<int>(arguments.size()), arguments.data(), commands,
                                    "rodimus of this test", out, err);
  return {code, out.str(), err.str()};
}

TEST(CommandLine, RunsACommand) {
  const Outcome outcome = run({"train", "--steps", "3"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out + outcome.err, "");
}

TEST(CommandLine, HelpAndVersion) {
  const Outcome help = run({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_NE(help.out.find("Train a model"), std::string::npos);
  EXPECT_NE(help.out.find("Example:"), std::string::npos);
  EXPECT_EQ(help.err, "");
  EXPECT_NE(run({"train", "--help"}).out.find("rodimus train --steps 3"), std::string::npos);
  const Outcome version = run({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.out, "rodimus of this test\n");
}

void expect_line(const Outcome& outcome, int code, const std::string& line) {
  EXPECT_EQ(outcome.code, code);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err, "rodimus: error: " + line + "\n");
}

TEST(CommandLine, MistakesAreOneLineAndCode2) {
  expect_line(run({}), 2, "no command; there are train or eval (see rodimus --help)");
  expect_line(run({"trian"}), 2, "unknown command trian; did you mean train?");
  expect_line(run({"zzz", "--steps", "1"}), 2, "unknown command zzz; there are train or eval");
  expect_line(run({"--versoin"}), 2, "unknown flag --versoin; did you mean --version?");
  expect_line(run({"train", "--steps", "1", "--quik"}), 2,
              "unknown flag --quik of rodimus train; did you mean --quick?");
  expect_line(run({"train", "--step=1", "--steps", "1"}), 2,
              "unknown flag --step of rodimus train; did you mean --steps?");
  expect_line(run({"train", "--steps", "1", "more"}), 2,
              "unexpected argument more (see rodimus train --help)");
  expect_line(run({"train"}), 2, "--steps is required (see rodimus train --help)");
  const Outcome no_number = run({"train", "--steps", "many"});
  EXPECT_EQ(no_number.code, 2);
  EXPECT_NE(no_number.err.find("many"), std::string::npos) << no_number.err;
}

TEST(CommandLine, AThrownErrorIsOneLineAndCode1) {
  expect_line(run({"train", "--steps", "7"}), 1, "seven is too many");
  expect_line(run({"train", "--steps", "8"}), 1, "std::bad_alloc");
}

TEST(CommandLine, OnlyRankZeroPrintsAboutTheCommandLine) {
  setenv("OMPI_COMM_WORLD_RANK", "1", 1);
  const Outcome mistake = run({"trian"}), help = run({"--help"}),
                failure = run({"train", "--steps", "7"});
  unsetenv("OMPI_COMM_WORLD_RANK");
  EXPECT_EQ(mistake.code, 2);
  EXPECT_EQ(mistake.err, "");
  EXPECT_EQ(help.out, "");
  EXPECT_NE(failure.err, "");  // a rank that fails alone must be heard
}

// What each declaration of train/commands/command.h means on the command line.
struct Declared {
  std::string file;
  std::vector<std::string> set;
  std::vector<int32_t> ids;
  std::string prompt;
  enum class Mode : uint8_t { fast, safe } mode = Mode::safe;
  bool progress = true;
} declared;

void add_declared(CLI::App& app) {
  Command command(app, "try", "Try options");
  command.option("file", declared.file, "a file").required();
  command.option("--set", declared.set, "keys").one_at_a_time();
  const Option prompt = command.option("--prompt", declared.prompt, "text");
  command.option("--ids", declared.ids, "tokens").delimiter(',').excludes(prompt);
  command.choice("--mode", declared.mode,
                 {{"fast", Declared::Mode::fast}, {"safe", Declared::Mode::safe}}, "how");
  command.flag("--no-progress", declared.progress, "be quiet", false);
  command.run([] {});
}

std::string run_declared(const std::vector<std::string>& words) {
  declared = {};
  std::vector<std::string> arguments = {"try"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  const AddCommand add = add_declared;
  std::ostringstream out;
  try {
    parse_and_run(arguments, {&add, 1}, "", out);
  } catch (const UsageError& error) {
    return error.what();
  }
  return out.str();
}

TEST(Command, OptionsMeanWhatTheyDeclare) {
  EXPECT_EQ(run_declared({"--set", "a=1", "c.toml", "--set", "b=2", "--ids", "3,5", "--mode",
                          "fast", "--no-progress"}),
            "");
  EXPECT_EQ(declared.file, "c.toml");  // not a second value of --set
  EXPECT_EQ(declared.set, (std::vector<std::string>{"a=1", "b=2"}));
  EXPECT_EQ(declared.ids, (std::vector<int32_t>{3, 5}));
  EXPECT_EQ(declared.mode, Declared::Mode::fast);
  EXPECT_FALSE(declared.progress);
  EXPECT_NE(run_declared({"c.toml", "--ids", "3", "--prompt", "x"}).find("excludes"),
            std::string::npos);
  EXPECT_NE(run_declared({"c.toml", "--mode", "fats"}).find("did you mean fast?"),
            std::string::npos);
  EXPECT_NE(run_declared({"--help"}).find("=safe"), std::string::npos);  // the default
  EXPECT_TRUE(declared.progress);
}

}  // namespace
}  // namespace rodimus
