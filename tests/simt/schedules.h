// The schedules that a kernel's test runs under: for each one, clear_reports(), run, compare, and
// expect report_text() to be empty.
#pragma once

#include <ostream>
#include <vector>

#include "tests/simt/emulator.h"

namespace simt {

struct NamedConfig {
  const char* name;
  Config config;
};

inline const std::vector<NamedConfig>& all_schedules() {
  static const std::vector<NamedConfig> all = {
      {"forward_late", {Schedule::forward, Landing::late, 1}},
      {"forward_early", {Schedule::forward, Landing::early, 1}},
      {"reverse_late", {Schedule::reverse, Landing::late, 1}},
      {"random_late", {Schedule::random, Landing::late, 7}},
      {"random_random", {Schedule::random, Landing::random, 11}},
      {"greedy_late", {Schedule::greedy, Landing::late, 1}},
      {"greedy_other", {Schedule::greedy, Landing::late, 2}},
      {"greedy_early", {Schedule::greedy, Landing::early, 3}},
  };
  return all;
}

// For INSTANTIATE_TEST_SUITE_P over all_schedules().
inline std::ostream& operator<<(std::ostream& out, const NamedConfig& one) {
  return out << one.name;
}

}  // namespace simt
