// The CUDA runtime for host code: its errors as Error, and the GPU of this process.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/exec.h"

namespace rodimus::cuda {

inline void check(cudaError_t error, const char* statement, const char* file, int line) {
  if (error == cudaSuccess) [[likely]]
    return;
  (void)cudaGetLastError();  // or the next call would report it again
  fail(file, ":", line, ": ", statement, ": ", cudaGetErrorString(error), " (",
       cudaGetErrorName(error), ")");
}

// What open_gpu() opened. Throws Error before that.
const Cuda& gpu_in_use();

}  // namespace rodimus::cuda

#define CUDA_CHECK(...) ::rodimus::cuda::check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
