// The text of an Error, for tests that compare it.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"

namespace rodimus::testing {

// The text of the Error that step() throws; otherwise "nothing was thrown", which matches no
// expected text.
inline std::string failure_of(const std::function<void()>& step) {
  try {
    step();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace rodimus::testing
