// The text of an Error, for tests that compare it.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"

namespace rodimus::testing {

inline constexpr const char* kNoFailure = "nothing was thrown";

// The text of the Error that step() throws; otherwise kNoFailure, which no expected text contains.
inline std::string failure_of(const std::function<void()>& step) {
  try {
    step();
  } catch (const Error& error) {
    return error.what();
  }
  return kNoFailure;
}

}  // namespace rodimus::testing
