// Runs one subcommand as the program does, in this process.
#pragma once

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

namespace rodimus::testing {

// The command's standard output. Errors are thrown or, if all ranks agree on them, printed.
inline std::string run_command(void (*add)(CLI::App&), std::vector<std::string> arguments) {
  CLI::App app{"rodimus"};
  add(app);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes the last argument first
  ::testing::internal::CaptureStdout();
  try {
    app.parse(arguments);
  } catch (...) {
    ::testing::internal::GetCapturedStdout();
    throw;
  }
  return ::testing::internal::GetCapturedStdout();
}

}  // namespace rodimus::testing
