// Which GPUs are accepted.
#include "kernels/device.h"

#include <gtest/gtest.h>

#include "tests/fakecuda/work.h"
#include "tests/simt/emulator.h"

namespace rodimus {
namespace {

TEST(FindGpus, NamesWhyThereIsNone) {
  EXPECT_EQ(find_gpus().count, 1);
  fakecuda::set_gpus(0, 0);
  EXPECT_EQ(find_gpus().reason, "no CUDA-capable device is detected");
  fakecuda::set_gpus(0, 2);
  EXPECT_EQ(find_gpus().count, 2);
}

// Desktop cards belong to the same generations, but their shared memory is too small for a tile of
// DDTS.
TEST(FindGpus, ACardWithoutTheSharedMemoryIsNone) {
  simt::set_gpu("sm_86");
  const Gpus gpus = find_gpus();
  EXPECT_EQ(gpus.count, 0);
  EXPECT_NE(gpus.reason.find("99 KB of shared memory for a block, need 8.0 and 163 KB"),
            std::string::npos)
      << gpus.reason;
  for (const char* taken : {"sm_80", "sm_90", "sm_100"}) {
    simt::set_gpu(taken);
    EXPECT_EQ(find_gpus().count, 2) << taken;
  }
  simt::set_gpu("sm_80");
}

}  // namespace
}  // namespace rodimus
