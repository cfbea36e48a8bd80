// The schedules that a kernel's test runs under: for each one, clear_reports(), run, compare, and
// expect report_text() to be empty. Each kind of schedule meets the tensor cores of both
// generations; the first, which some long tests run alone, has those that lose more.
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
      {"forward_late", {Schedule::forward, Landing::late, 1, TensorCore::a100}},
      {"forward_early", {Schedule::forward, Landing::early, 1, TensorCore::h100}},
      {"reverse_late", {Schedule::reverse, Landing::late, 1, TensorCore::h100}},
      {"random_late", {Schedule::random, Landing::late, 7, TensorCore::a100}},
      {"random_random", {Schedule::random, Landing::random, 11, TensorCore::h100}},
      {"greedy_late", {Schedule::greedy, Landing::late, 1, TensorCore::h100}},
      {"greedy_other", {Schedule::greedy, Landing::late, 2, TensorCore::a100}},
      {"greedy_early", {Schedule::greedy, Landing::early, 3, TensorCore::a100}},
  };
  return all;
}

// For INSTANTIATE_TEST_SUITE_P over all_schedules().
inline std::ostream& operator<<(std::ostream& out, const NamedConfig& one) {
  return out << one.name;
}

}  // namespace simt
