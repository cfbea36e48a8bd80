// What an Error says, for tests that compare its text.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"

namespace rodimus::testing {

// The text of the Error that step() throws; "nothing was thrown", in which no test finds what it
// wants, when there is none.
inline std::string failure_of(const std::function<void()>& step) {
  try {
    step();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace rodimus::testing
