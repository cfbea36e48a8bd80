#include "kernels/cpu/machine.h"

#include <gtest/gtest.h>

#include <string>

namespace rodimus::cpu {
namespace {

CpuFeatures bit_of(const std::string& wanted) {
  int bit = 0;
#define FIND(name, macro)                           \
  if (wanted == name) return CpuFeatures{1} << bit; \
  ++bit;
  RODIMUS_CPU_FEATURES(FIND)
  ADD_FAILURE() << "no feature " << wanted;
  return 0;
}

TEST(Machine, RunsWhereItWasBuiltWithArchNative) {
  require_cpu_features(cpu_features_built_for, cpu_features_present());
}

TEST(Machine, MoreThanNeededIsFine) {
  require_cpu_features(0, 0);
  require_cpu_features(0b0101, 0b1101);
}

#if defined(__x86_64__)
// Every x86-64 machine that can build the project has these; with a wrong bit order they would be
// missing.
TEST(Machine, SeesTheFeaturesOfThisMachine) {
  const CpuFeatures present = cpu_features_present();
  EXPECT_EQ(present & bit_of("avx2"), __builtin_cpu_supports("avx2") ? bit_of("avx2") : 0);
  EXPECT_EQ(present & bit_of("avx512bf16"),
            __builtin_cpu_supports("avx512bf16") ? bit_of("avx512bf16") : 0);
}

// This file is compiled with the program's -march, so the compiler's macros say what the record
// must contain.
TEST(Machine, RecordsWhatTheCompilerMayUse) {
#ifdef __AVX2__
  EXPECT_NE(cpu_features_built_for & bit_of("avx2"), 0u);
#else
  EXPECT_EQ(cpu_features_built_for & bit_of("avx2"), 0u);
#endif
#ifdef __AVX512F__
  EXPECT_NE(cpu_features_built_for & bit_of("avx512f"), 0u);
#else
  EXPECT_EQ(cpu_features_built_for & bit_of("avx512f"), 0u);
#endif
}

TEST(MachineDeathTest, NamesExactlyWhatIsMissing) {
  const CpuFeatures built_for = bit_of("avx2") | bit_of("avx512f") | bit_of("avx512bf16");
  EXPECT_EXIT(require_cpu_features(built_for, bit_of("avx2")), testing::ExitedWithCode(1),
              "^error: this program was built for a processor with avx512f avx512bf16, which .*"
              "-DRODIMUS_ARCH=x86-64-v3.*\n$");
}

TEST(MachineDeathTest, AllNamesFit) {
  EXPECT_EXIT(require_cpu_features(~CpuFeatures{0}, 0), testing::ExitedWithCode(1),
              "with sse3 .* avx512fp16, which");
}
#endif

}  // namespace
}  // namespace rodimus::cpu
