// Commands that do not share work among ranks, under a launcher: one line, exit code 1, no files.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace rodimus {
namespace {

struct Outcome {
  int code;
  std::string out, errors;  // errors: only the program's lines, not the launcher's
};

Outcome run_on_two_ranks(const std::string& arguments) {
  const std::string command =
      std::string(std::getenv("MPIRUN")) + " -n 2 " + std::getenv("RODIMUS") + " " + arguments;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  Outcome outcome;
  char buffer[4096];
  while (std::fgets(buffer, sizeof(buffer), pipe) != nullptr) {
    const std::string line = buffer;
    (line.starts_with("rodimus: ") ? outcome.errors : outcome.out) += line;
  }
  outcome.code = WEXITSTATUS(::pclose(pipe));
  return outcome;
}

TEST(SingleProcess, CommandsRefuseSeveralRanks) {
  const std::string folder = ::testing::TempDir() + "single_process_test";
  const std::string source = RODIMUS_SOURCE_DIR;
  std::filesystem::remove_all(folder);
  const std::pair<const char*, std::string> commands[] = {
      {"inspect", source + "/configs/tiny.toml"},
      {"tokenize", "--input " + source + "/README.md --vocab-size 300 --out " + folder},
      {"generate", "--checkpoint nowhere"}};
  for (const auto& [name, arguments] : commands) {
    const Outcome outcome = run_on_two_ranks(name + (" " + arguments));
    EXPECT_EQ(outcome.code, 1) << outcome.out;
    EXPECT_EQ(outcome.errors, std::string("rodimus: error: rodimus ") + name +
                                  " does not share its work among 2 processes; start it without "
                                  "mpirun\n");
    EXPECT_EQ(outcome.out.find("parameters"), std::string::npos) << outcome.out;
  }
  EXPECT_FALSE(std::filesystem::exists(folder));
}

}  // namespace
}  // namespace rodimus
