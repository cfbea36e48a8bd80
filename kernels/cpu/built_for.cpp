// The only file of the machine check that is compiled with the program's -march: it records, as
// data, which instruction sets that option allows.
#include "kernels/cpu/machine.h"

namespace rodimus::cpu {
namespace {

// A feature macro expands to 1 where the compiler may use the feature and to its own name
// elsewhere.
#define RODIMUS_TEXT(x) #x
#define RODIMUS_ALLOWED(name, macro) (RODIMUS_TEXT(macro)[0] == '1'),
constexpr bool kAllowed[] = {RODIMUS_CPU_FEATURES(RODIMUS_ALLOWED) false};  // false: no empty array

constexpr CpuFeatures pack() {
  CpuFeatures features = 0;
  int bit = 0;
  for (const bool allowed : kAllowed) features |= CpuFeatures{allowed} << bit++;
  return features;
}

}  // namespace

constinit const CpuFeatures cpu_features_built_for = pack();

}  // namespace rodimus::cpu
