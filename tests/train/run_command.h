// Runs one sub-command as the program does, in this process.
#pragma once

#include <gtest/gtest.h>

#include <iostream>
#include <string>
#include <vector>

#include "train/commands/command_line.h"

namespace rodimus::testing {

// What the command prints to stdout. A wrong command line throws UsageError; the command's own
// errors are thrown or, when all ranks agree on them, printed.
inline std::string run_command(AddCommand add, const std::vector<std::string>& arguments) {
  ::testing::internal::CaptureStdout();
  try {
    parse_and_run(arguments, {&add, 1}, "", std::cout);
    std::cout.flush();
  } catch (...) {
    ::testing::internal::GetCapturedStdout();
    throw;
  }
  return ::testing::internal::GetCapturedStdout();
}

}  // namespace rodimus::testing
