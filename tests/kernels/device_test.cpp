// Which GPUs are accepted.
#include "kernels/device.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/fakecuda/work.h"
#include "tests/simt/emulator.h"

namespace rodimus {
namespace {

TEST(FindGpus, NamesWhyThereIsNone) {
  EXPECT_EQ(find_gpus().count, 1);
  unsetenv("CUDA_VISIBLE_DEVICES");
  fakecuda::set_gpus(0, 0);
  const std::string hint =
      " (nvidia-smi -L lists numbers, UUIDs and, where MIG is enabled, the instances)";
  EXPECT_EQ(find_gpus().reason,
            "the driver shows no GPU; a GPU with MIG enabled needs an instance, and a container "
            "needs access (--gpus all)" +
                hint);
  setenv("CUDA_VISIBLE_DEVICES", "", 1);
  EXPECT_EQ(find_gpus().reason,
            "CUDA_VISIBLE_DEVICES = \"\" leaves no GPU; unset it or name one that exists" + hint);
  unsetenv("CUDA_VISIBLE_DEVICES");
  fakecuda::set_gpus(0, 2);
  EXPECT_EQ(find_gpus().count, 2);
}

TEST(FindGpus, NamesWhatIsWrongWithTheDriver) {
  const auto reason = [](cudaError_t error, int version) {
    fakecuda::set_driver(error, version);
    const Gpus gpus = find_gpus();
    EXPECT_EQ(gpus.count, 0);
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "the next call must not report it again";
    fakecuda::set_driver(cudaSuccess, fakecuda::kDriverVersion);
    return gpus.reason;
  };
  EXPECT_EQ(reason(cudaErrorInsufficientDriver, 12040),
            "the NVIDIA driver is too old: it supports CUDA 12.4, this program needs CUDA 13.0 or "
            "later; update the driver, or build with a CUDA toolkit 12.x "
            "(-DCUDAToolkit_ROOT=DIR)");
  EXPECT_EQ(reason(cudaErrorInsufficientDriver, 0),
            "no NVIDIA driver (libcuda.so.1) was found; install one, or start the container with "
            "access to the GPUs (--gpus all)");
  EXPECT_EQ(reason(cudaErrorSystemDriverMismatch, 13000),
            "the driver's library and its kernel module are of different versions; reboot after "
            "an update of the driver, or use the library of the host in the container");
  EXPECT_EQ(reason(cudaErrorSystemNotReady, 13000),
            "the GPUs are not ready; on machines with NVSwitch the fabric manager must run "
            "(systemctl status nvidia-fabricmanager)");
  EXPECT_EQ(reason(cudaErrorCompatNotSupportedOnDevice, 13000),
            "a forward-compatibility library (cuda-compat) was found that this GPU does not "
            "support; remove its folder from LD_LIBRARY_PATH");
  EXPECT_EQ(reason(cudaErrorUnknown, 13000),
            "an error of the fake runtime (cudaErrorOfTheFake); nvidia-smi shows whether the "
            "driver works");
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
