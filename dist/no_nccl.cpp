// The sums between GPUs of a build without the CUDA backend: none.
#include "dist/communicator.h"

namespace rodimus {

std::unique_ptr<Communicator> make_nccl(Communicator&, const Cuda&) {
  fail("no NCCL: this program was built without the CUDA backend");
}

}  // namespace rodimus
