// Which GPU a rank uses.
#include "dist/communicator.h"
#include "kernels/device.h"

namespace rodimus {

Cuda open_gpu(const Communicator& communicator) {
  const Gpus gpus = find_gpus();
  if (gpus.count == 0) fail("no GPU: ", gpus.reason);
  return open_gpu(communicator.local_rank() % gpus.count);
}

}  // namespace rodimus
