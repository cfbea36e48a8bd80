// A program built for an instruction set that no machine has. It must be rejected before its static
// initialisers run, which are the first code that may contain unsupported instructions.
#include <cstdio>

#include "kernels/cpu/machine.h"

namespace rodimus::cpu {
constinit const CpuFeatures cpu_features_built_for = CpuFeatures{1} << 31;
}

namespace {
const int initialised = std::fputs("static initialiser ran\n", stderr);
}

int main() { return initialised < 0; }
