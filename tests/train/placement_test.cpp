// What run.device makes of a machine whose GPU cannot be used.
#include "train/placement.h"

#include <gtest/gtest.h>

#include "tests/fakecuda/work.h"
#include "tests/support/failure_of.h"

namespace rodimus {
namespace {

TEST(Placement, WithAnOldDriverAutoTakesTheCpuAndSaysWhy) {
  const std::string cause =
      "no GPU: the NVIDIA driver is too old: it supports CUDA 12.4, this program needs CUDA 13.0 "
      "or later; update the driver, or build with a CUDA toolkit 12.x (-DCUDAToolkit_ROOT=DIR)";
  const std::unique_ptr<Communicator> alone = make_single();
  fakecuda::set_driver(cudaErrorInsufficientDriver, 12040);
  const Exec exec = place_rank("auto", 1, *alone);
  EXPECT_EQ(device_of(exec), Device::cpu);
  EXPECT_EQ(describe_device("auto", exec), "1 thread on the CPU (auto: " + cause + ")");
  EXPECT_EQ(testing::failure_of([&] { (void)place_rank("cuda", 1, *alone); }),
            "run.device = \"cuda\", but there is " + cause +
                "; use \"cpu\", or \"auto\" to use a GPU only if there is one");
  fakecuda::set_driver(cudaSuccess, fakecuda::kDriverVersion);
  EXPECT_EQ(device_of(place_rank("auto", 1, *alone)), Device::cuda);
}

}  // namespace
}  // namespace rodimus
