// Compiled for the baseline architecture, whatever the program is built for, because it must run
// where the rest cannot. For the same reason it uses no standard library templates: the linker
// keeps one copy of each instance, which could come from a file compiled for a wider instruction
// set.
#include "kernels/cpu/machine.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace rodimus::cpu {
namespace {

#define RODIMUS_NAME(name, macro) name,
constexpr const char* kNames[] = {RODIMUS_CPU_FEATURES(RODIMUS_NAME) nullptr};

// Priority 101 is the earliest that a program may use, so this runs before the static initialisers,
// which are compiled for the wider instruction set.
[[gnu::constructor(101)]] void check_at_start() {
  require_cpu_features(cpu_features_built_for, cpu_features_present());
}

}  // namespace

CpuFeatures cpu_features_present() {
  CpuFeatures features = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  int bit = 0;
#define RODIMUS_PRESENT(name, macro) \
  features |= CpuFeatures{__builtin_cpu_supports(name) != 0} << bit++;
  RODIMUS_CPU_FEATURES(RODIMUS_PRESENT)
#endif
  return features;
}

void require_cpu_features(CpuFeatures built_for, CpuFeatures present) {
  const CpuFeatures missing = built_for & ~present;
  if (missing == 0) return;
  char names[512] = "";  // all names together fill half of it
  for (int bit = 0; kNames[bit] != nullptr; ++bit) {
    if ((missing >> bit & 1u) == 0) continue;
    std::strcat(names, " ");
    std::strcat(names, kNames[bit]);
  }
  char line[1024];
  const int length = std::snprintf(
      line, sizeof line,
      "error: this program was built for a processor with%s, which this machine lacks; build it "
      "here, or for every machine of the run with -DRODIMUS_ARCH=x86-64-v3 (AVX2) or x86-64-v2\n",
      names);
  // Not std::cerr or exit(): streams and exit handlers may not be usable yet.
  if (write(STDERR_FILENO, line, static_cast<size_t>(length)) < 0) _exit(2);
  _exit(1);
}

}  // namespace rodimus::cpu
