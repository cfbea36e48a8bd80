#include "kernels/cuda/why_no_gpu.h"

#include <cstdlib>

#include "base/error.h"

namespace rodimus::cuda {
namespace {

// The runtime counts 13.1 as 13010.
std::string text_of(int version) { return concat(version / 1000, ".", version % 1000 / 10); }

// The runtime reports a missing driver and an old one alike.
std::string of_driver() {
  int driver = 0, runtime = 0;
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  if (driver == 0)
    return "no NVIDIA driver (libcuda.so.1) was found; install one, or start the container with "
           "access to the GPUs (--gpus all)";
  // Within a major version newer runtimes run on older drivers.
  return concat("the NVIDIA driver is too old: it supports CUDA ", text_of(driver),
                ", this program needs CUDA ", runtime / 1000,
                ".0 or later; update the driver, or build with a CUDA toolkit ", driver / 1000,
                ".x (-DCUDAToolkit_ROOT=DIR)");
}

std::string of_devices() {
  constexpr const char* kList =
      "nvidia-smi -L lists numbers, UUIDs and, where MIG is enabled, the instances";
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES"))
    return concat("CUDA_VISIBLE_DEVICES = \"", visible,
                  "\" leaves no GPU; unset it or name one that exists (", kList, ")");
  return concat(
      "the driver shows no GPU; a GPU with MIG enabled needs an instance, and a container needs "
      "access (--gpus all) (",
      kList, ")");
}

}  // namespace

std::string why_no_gpu(cudaError_t error) {
  switch (error) {
    case cudaErrorInsufficientDriver:
      return of_driver();
    case cudaSuccess:  // no error, but no device either
    case cudaErrorNoDevice:
      return of_devices();
    case cudaErrorSystemDriverMismatch:
      return "the driver's library and its kernel module are of different versions; reboot after "
             "an update of the driver, or use the library of the host in the container";
    case cudaErrorSystemNotReady:
      return "the GPUs are not ready; on machines with NVSwitch the fabric manager must run "
             "(systemctl status nvidia-fabricmanager)";
    case cudaErrorCompatNotSupportedOnDevice:
      return "a forward-compatibility library (cuda-compat) was found that this GPU does not "
             "support; remove its folder from LD_LIBRARY_PATH";
    default:
      return concat(cudaGetErrorString(error), " (", cudaGetErrorName(error),
                    "); nvidia-smi shows whether the driver works");
  }
}

}  // namespace rodimus::cuda
