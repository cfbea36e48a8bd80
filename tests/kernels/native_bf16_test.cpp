// gemm follows cpu_multiplies_bf16(), even when oneDNN is told not to use some instructions.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/gemm.h"

namespace rodimus {
namespace {

// Exit codes of a process that ran one product.
constexpr int kNative = 3, kWidened = 4;

// In a separate process, because oneDNN reads the environment only once.
[[noreturn]] void multiply_under(const char* isa) {
  if (isa != nullptr) setenv("ONEDNN_MAX_CPU_ISA", isa, 1);
  const bool native = cpu_multiplies_bf16();
  constexpr int64_t kSize = 64;
  const std::vector<bf16> a(kSize * kSize, bf16(1.0f));
  std::vector<float> c(kSize * kSize);
  Cpu cpu{1};
  gemm(cpu, {.m = kSize, .n = kSize, .k = kSize}, c.data(), a.data(), a.data(), 0);
  std::fputs("multiplied\n", stderr);
  std::_Exit(native ? kNative : kWidened);
}

class NativeBf16DeathTest : public ::testing::Test {
 protected:
  NativeBf16DeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(NativeBf16DeathTest, GemmWidensExactlyWhereItIsSaid) {
  if (cpu_multiplies_bf16()) {
    EXPECT_EXIT(multiply_under(nullptr), testing::ExitedWithCode(kNative), "^multiplied");
  } else {
    EXPECT_EXIT(multiply_under(nullptr), testing::ExitedWithCode(kWidened),
                "^note: .*computed in f32");
  }
}

// A processor with AVX-512 but without AVX512_BF16 (Skylake-X, Cascade Lake) widens, as one with
// AVX2 does.
TEST_F(NativeBf16DeathTest, LesserInstructionsWiden) {
  for (const char* isa : {"AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"}) {
    EXPECT_EXIT(multiply_under(isa), testing::ExitedWithCode(kWidened), "^note: .*computed in f32")
        << isa;
  }
}

}  // namespace
}  // namespace rodimus
