// A program that was built for an instruction set that no machine has. It must be refused before
// its static initialisers run: they are the first code that the compiler may have made too wide.
#include <cstdio>

#include "kernels/cpu/machine.h"

namespace rodimus::cpu {
constinit const CpuFeatures cpu_features_built_for = CpuFeatures{1} << 31;
}

namespace {
const int initialised = std::fputs("static initialiser ran\n", stderr);
}

int main() { return initialised < 0; }
