// What the options of all commands accept. The parser's own conversions take -1 for 2^64 - 1, 010
// for 8, and nan and inf for numbers; every option has one of these checks instead, so a bad value
// is one line that names flag, value and what was expected.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "train/commands/command.h"

namespace rodimus {

inline constexpr int64_t kMostInt64 = std::numeric_limits<int64_t>::max();

// The whole text is a decimal integer in [low, high].
Check integer_in(int64_t low, int64_t high = kMostInt64);
// A decimal integer in [0, 2^64 - 1]: any seed of our generators.
Check any_seed();

// A finite decimal number; `above`: low itself is excluded, `below`: high is.
struct NumberRange {
  double low = -std::numeric_limits<double>::max();
  double high = std::numeric_limits<double>::max();
  bool above = false, below = false;
};
Check number_in(NumberRange range);

Check one_of(std::vector<std::string> choices);

// Refuses "": an empty path or name usually is an unset shell variable.
Check not_empty();

// The configuration file, which is returned, and --set, of every command that reads one.
Option add_config_options(Command& command, std::string& config, std::vector<std::string>& set);

// Where and in which type a trained model computes: --compute, --device, --threads.
void add_inference_options(Command& command, std::string& compute, std::string& device,
                           int& threads);

// "0", "-3", "2^31 - 1": the bounds of the types in the form people recognise.
std::string readable_bound(int64_t bound);

}  // namespace rodimus
