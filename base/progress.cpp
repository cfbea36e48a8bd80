#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace rodimus {

Progress::Progress(std::string label, uint64_t total, bool enabled)
    : label_(std::move(label)),
      total_(total),
      enabled_(enabled),
      terminal_(::isatty(STDERR_FILENO) == 1) {}

void Progress::update(uint64_t done) {
  if (!enabled_) return;
  const auto now = Clock::now();
  if (now - shown_ < std::chrono::milliseconds(terminal_ ? 200 : 5000)) return;
  shown_ = now;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  const auto bytes = static_cast<double>(std::max<uint64_t>(done, 1));
  std::string line =
      fmt::format("{} {:.1f} MB, {:.1f} MB/s", label_, bytes * 1e-6, bytes * 1e-6 / seconds);
  if (total_ > 0) {
    const double share = std::min(1.0, bytes / static_cast<double>(total_));
    line += fmt::format(", {:.0f} %, {:.0f} s left", 100 * share, seconds * (1 - share) / share);
  }
  fmt::print(stderr, "{}{}{}", terminal_ ? "\r\x1b[K" : "", line, terminal_ ? "" : "\n");
  std::fflush(stderr);
}

void Progress::finish(const std::string& message) {
  if (!enabled_) return;
  if (terminal_) fmt::print(stderr, "\r\x1b[K");
  if (!message.empty()) fmt::print(stderr, "{}\n", message);
}

}  // namespace rodimus
