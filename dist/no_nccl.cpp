// make_nccl in a build without the CUDA backend: throws.
#include "dist/communicator.h"

namespace rodimus {

std::unique_ptr<Communicator> make_nccl(Communicator&, const Cuda&) {
  fail("no NCCL: this program was built without the CUDA backend");
}

}  // namespace rodimus
