// Why the CUDA runtime finds no GPU, for people who can do something about it.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace rodimus::cuda {

// One clause for the error of cudaGetDeviceCount(): the cause, and what to do.
std::string why_no_gpu(cudaError_t error);

}  // namespace rodimus::cuda
