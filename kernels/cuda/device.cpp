#include "kernels/device.h"

#include <cublasLt.h>

#include <mutex>
#include <optional>

#include "kernels/cuda/faults.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/why_no_gpu.h"
#include "kernels/memory.h"

namespace rodimus {
namespace {

// cuBLASLt's recommendation for Hopper; others need less.
constexpr size_t kWorkspaceBytes = size_t{32} << 20;
// mma.sync with bf16 and cp.async.
constexpr int kOldestMajor = 8;
// Of an A100; the tiles of DDTS and SW-SKA are made for it. Cards for desktops have 99 KB.
constexpr int kLeastSharedBytes = 163 << 10;

std::optional<Cuda>& opened() {
  static std::optional<Cuda> gpu;
  return gpu;
}

int shared_bytes_of(int index) {
  int bytes = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  return bytes;
}

Cuda open(int index) {
  const Gpus gpus = find_gpus();
  if (gpus.count == 0) fail("no GPU: ", gpus.reason);
  if (index < 0 || index >= gpus.count) {
    fail("GPU ", index, " is not there: this process sees ", gpus.count,
         "; start at most one rank per GPU (mpirun -n), or look at CUDA_VISIBLE_DEVICES");
  }
  CUDA_CHECK(cudaSetDevice(index));
  Cuda gpu;
  gpu.device = index;
  CUDA_CHECK(cudaDeviceGetAttribute(&gpu.sm_count, cudaDevAttrMultiProcessorCount, index));
  gpu.shared_bytes = shared_bytes_of(index);
  // Not the default stream, which waits for every other.
  CUDA_CHECK(cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking));
  const cublasStatus_t status = cublasLtCreate(&gpu.blaslt);
  if (status != CUBLAS_STATUS_SUCCESS)
    fail("cublasLtCreate on GPU ", index, ": ", cublasLtGetStatusString(status));
  void* memory = nullptr;
  CUDA_CHECK(cudaMalloc(&memory, kWorkspaceBytes));
  gpu.workspace = static_cast<std::byte*>(memory);
  gpu.workspace_bytes = kWorkspaceBytes;
  CUDA_CHECK(cudaMalloc(&memory, cuda::kFaults * sizeof(cuda::FaultWords)));
  CUDA_CHECK(cudaMemset(memory, 0xff, cuda::kFaults * sizeof(cuda::FaultWords)));
  CUDA_CHECK(cudaDeviceSynchronize());  // before work on our stream, which does not wait for it
  gpu.faults = static_cast<uint64_t*>(memory);
  return gpu;
}

}  // namespace

Gpus find_gpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    (void)cudaGetLastError();  // or the next call would report it again
    return {0, cuda::why_no_gpu(error)};
  }
  for (int index = 0; index < count; ++index) {
    int major = 0;
    CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
    const int shared = shared_bytes_of(index);
    if (major >= kOldestMajor && shared >= kLeastSharedBytes) continue;
    return {0, concat("GPU ", index, " has compute capability ", major, ".x and ", shared / 1024,
                      " KB of shared memory for a block, need ", kOldestMajor, ".0 and ",
                      kLeastSharedBytes / 1024,
                      " KB (A100, H100, B200); CUDA_VISIBLE_DEVICES can hide it")};
  }
  return {count, ""};
}

Cuda open_gpu(int index) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (!opened()) opened() = open(index);
  CHECK(opened()->device == index, "open_gpu: GPU ", index, " after GPU ", opened()->device,
        "; one per process");
  return *opened();
}

const Cuda& cuda::gpu_in_use() {
  CHECK(opened(), "GPU memory before open_gpu()");
  return *opened();
}

// What download() reads along comes after all that was queued.
void wait(Cuda& gpu) { memory::download(gpu, nullptr, nullptr, 0); }

}  // namespace rodimus
