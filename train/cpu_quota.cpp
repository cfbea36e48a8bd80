#include "train/cpu_quota.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <sstream>
#include <vector>

namespace rodimus {
namespace {

namespace fs = std::filesystem;

constexpr double kNone = std::numeric_limits<double>::infinity();

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

std::vector<std::string> words_of_file(const fs::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return words_of(line);
}

double cores_of(const std::string& quota, const std::string& period) {
  const auto positive = [](const std::string& text) -> std::optional<double> {
    int64_t value = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc{} || rest != end || value <= 0) return {};
    return static_cast<double>(value);
  };
  const auto time = positive(quota), of = positive(period);  // "max" and -1: no limit
  return time && of ? *time / *of : kNone;
}

double quota_of_group(const fs::path& group, bool v2) {
  if (v2) {
    const auto words = words_of_file(group / "cpu.max");
    return words.size() == 2 ? cores_of(words[0], words[1]) : kNone;
  }
  const auto quota = words_of_file(group / "cpu.cfs_quota_us");
  const auto period = words_of_file(group / "cpu.cfs_period_us");
  return quota.size() == 1 && period.size() == 1 ? cores_of(quota[0], period[0]) : kNone;
}

bool has_item(const std::string& list, const std::string& item) {
  return ("," + list + ",").find("," + item + ",") != std::string::npos;
}

// mountinfo escapes blanks as \040.
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    const char* const digits = text.data() + i + 1;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(digits, digits + 3, value, 8).ptr == digits + 3) {
      out += static_cast<char>(value);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// The path of this process in the version 2 hierarchy, or in the version 1 hierarchy with the cpu
// controller.
std::optional<std::string> path_of_process(const fs::path& root, bool v2) {
  std::ifstream stream(root / "proc/self/cgroup");
  for (std::string line; std::getline(stream, line);) {  // ID:CONTROLLERS:PATH
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (v2 ? controllers.empty() : has_item(controllers, "cpu")) return line.substr(second + 1);
  }
  return {};
}

// `path` relative to `mounted`, the visible part of the hierarchy; empty if it is not below it, as
// in a container that sees its host's paths.
std::string below(const std::string& path, const std::string& mounted) {
  if (path.find("..") != std::string::npos) return "";
  if (mounted == "/") return path.substr(path.starts_with('/') ? 1 : 0);
  return path.starts_with(mounted + "/") ? path.substr(mounted.size() + 1) : "";
}

}  // namespace

double cpu_quota(const fs::path& root) {
  double least = kNone;
  std::ifstream stream(root / "proc/self/mountinfo");
  for (std::string line; std::getline(stream, line);) {
    // ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS [TAGS...] - TYPE SOURCE OPTIONS
    const auto words = words_of(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 6 || words.end() - dash < 4) continue;
    const bool v2 = dash[1] == "cgroup2";
    if (!v2 && !(dash[1] == "cgroup" && has_item(dash[3], "cpu"))) continue;
    const auto path = path_of_process(root, v2);
    if (!path) continue;
    const fs::path top = root / fs::path(unescaped(words[4])).relative_path();
    fs::path group = top;
    least = std::min(least, quota_of_group(group, v2));
    for (const fs::path& level : fs::path(below(*path, unescaped(words[3])))) {
      group /= level;
      least = std::min(least, quota_of_group(group, v2));
    }
  }
  return least;
}

int threads_within(double quota, int cores, int ranks) {
  const double share = std::ceil(quota / std::max(1, ranks));
  return share < cores ? std::max(1, static_cast<int>(share)) : cores;
}

std::string describe_quota(double quota, int cores, int ranks) {
  const int threads = threads_within(quota, cores, ranks);
  if (threads == cores) return "";
  return fmt::format("{} cores{}, but the container's CPU quota is {:.4g}: {} thread{}{}", cores,
                     ranks > 1 ? " per rank" : "", quota, threads, threads == 1 ? "" : "s",
                     ranks > 1 ? fmt::format(" for each of {} ranks", ranks) : "");
}

}  // namespace rodimus
