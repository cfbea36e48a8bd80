// Elapsed time, and one progress line on stderr: rewritten in place on a terminal, else printed
// every few seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace rodimus {

inline double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

class Progress {
 public:
  // total: bytes to process; 0 when unknown.
  Progress(std::string label, uint64_t total, bool enabled);
  void update(uint64_t done);
  void finish(const std::string& message);  // clears the line, prints `message` unless empty

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  uint64_t total_;
  bool enabled_, terminal_;
  Clock::time_point begin_ = Clock::now(), shown_ = begin_;
};

}  // namespace rodimus
