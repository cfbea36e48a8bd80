// Errors. Two kinds, one type: CHECK guards facts of the program (shapes, sizes) and adds
// file:line; fail() reports what the outside world gave us (config, shard, checkpoint) in one line
// a user can act on. Both throw Error; main() prints it.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace rodimus {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// All parts streamed into one string: concat("T = ", 5) == "T = 5".
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

// Throws Error without a source location: for bad input. Say what, where, what was expected, what
// to do.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(concat(parts...));
}

// Narrowing that cannot lose bits: throws Error when the value does not fit.
template <class To, class From>
To narrow(From value) {
  static_assert(std::is_integral_v<To> && std::is_integral_v<From>);
  if (!std::in_range<To>(value)) {
    fail("narrow: ", value, " does not fit into ", sizeof(To), " bytes");
  }
  return static_cast<To>(value);
}

}  // namespace rodimus

#define CHECK(condition, ...)                                                                \
  do {                                                                                       \
    if (!(condition)) [[unlikely]] {                                                         \
      throw ::rodimus::Error(::rodimus::concat(__FILE__, ":", __LINE__, ": ", __VA_ARGS__)); \
    }                                                                                        \
  } while (false)
