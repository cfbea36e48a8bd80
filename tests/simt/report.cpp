// What was found, and where: code addresses become source lines through addr2line.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>

#include "tests/simt/engine.h"

extern "C" const char __executable_start;  // first byte of this program in memory, from the linker

namespace simt {
namespace {

std::vector<Report> found;
std::set<std::string> known;           // kind and key
std::map<std::string, int> how_often;  // by kind

struct Lines {
  std::string function, line;
};

std::string short_path(std::string path) {
  if (const size_t discriminator = path.find(" ("); discriminator != std::string::npos) {
    path.resize(discriminator);
  }
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

// Lines that carry out what a kernel asked for are not where it asked.
bool is_plumbing(const std::string& path) {
  for (const char* part : {"tests/simt/device", "kernels/cuda/ptx.cuh", "kernels/cuda/dev.cuh",
                           "/usr/", "cuda_bf16"}) {
    if (path.find(part) != std::string::npos) return true;
  }
  return false;
}

// The innermost source line that belongs to a kernel: inlined functions come as a list of frames.
Lines look_up(const void* address, bool call) {
  const auto offset = reinterpret_cast<uintptr_t>(address) -
                      reinterpret_cast<uintptr_t>(&__executable_start) - (call ? 1 : 0);
  char command[128];
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/exe", int(getpid()));
  std::snprintf(command, sizeof command, "addr2line -e %s -i -f -C 0x%zx 2>/dev/null", path,
                size_t(offset));
  Lines best;
  if (FILE* pipe = popen(command, "r")) {
    char function[1024], line[1024];
    while (std::fgets(function, sizeof function, pipe) && std::fgets(line, sizeof line, pipe)) {
      std::string where = line, name = function;
      where.pop_back();
      name.pop_back();
      const bool plumbing = is_plumbing(where);
      if (best.line.empty() || !plumbing) best = {name, short_path(where)};
      if (!plumbing) break;
    }
    pclose(pipe);
  }
  if (best.line.empty() || best.line.starts_with("?")) {
    std::snprintf(command, sizeof command, "code 0x%zx", size_t(offset));
    best.line = command;
  }
  return best;
}

const Lines& cached(const void* address, bool call) {
  static std::map<const void*, Lines> cache;
  auto [entry, fresh] = cache.try_emplace(address);
  if (fresh) entry->second = look_up(address, call);
  return entry->second;
}

}  // namespace

void report(const char* kind, const std::string& key, const std::string& message) {
  if (how_often[kind] >= config.max_reports) return;
  if (!known.insert(std::string(kind) + '\n' + key).second) return;
  how_often[kind] += 1;
  found.push_back({kind, message});
}

const std::vector<Report>& reports() { return found; }

void clear_reports() {
  found.clear();
  known.clear();
  how_often.clear();
}

std::string report_text() {
  std::string text;
  for (const Report& one : found) text += "[" + one.kind + "] " + one.message + "\n";
  return text;
}

std::string line_of(const Where& where) {
  return short_path(where.file_name()) + ":" + std::to_string(where.line());
}

std::string line_of_code(const void* code_address) { return cached(code_address, true).line; }

std::string function_of_code(const void* code_address) {
  return cached(code_address, false).function;
}

}  // namespace simt
