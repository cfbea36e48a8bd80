// The GPU functions of a build without the CUDA backend: they find no GPU.
#include "kernels/device.h"
#include "kernels/memory.h"
#include "kernels/timeline.h"

namespace rodimus {

Gpus find_gpus() { return {0, "this program was built without the CUDA backend"}; }

Cuda open_gpu(int) { fail("no GPU: ", find_gpus().reason); }

Timeline::~Timeline() = default;
void Timeline::mark() { fail("no GPU: ", find_gpus().reason); }
std::vector<double> Timeline::read() { return {}; }

namespace memory::gpu {

std::shared_ptr<std::byte> allocate(size_t) { fail("no GPU: ", find_gpus().reason); }
Stats stats() { return {}; }
void reset_peak() {}
void release_cached() {}

}  // namespace memory::gpu

}  // namespace rodimus
