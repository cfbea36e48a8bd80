// The ranks that share the work of an op, as ops see them: autograd sums over a group without
// knowing what connects its ranks. dist/ implements it.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// All members except rank() and world_size() are collective: all ranks of the group call it, in the
// same order, with the same sizes, from the thread that made the group.
class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;

  // x[i] = sum over the ranks of x[i]; x is in device memory. Every rank gets the same bits;
  // make_mpi and make_nccl in dist/communicator.h document what else they depend on. On the GPU the
  // sum is queued like a kernel.
  virtual void all_reduce_sum(Cpu&, float* x, int64_t n) = 0;
  virtual void all_reduce_sum(Cuda&, float* x, int64_t n) = 0;
  void all_reduce_sum(Exec& exec, float* x, int64_t n) {
    on_device(exec, [&](auto& backend) { all_reduce_sum(backend, x, n); });
  }
  // The same in two parts, so that a GPU can compute in between; nothing may touch x until the
  // second. Several sums may be in flight: finish_sums(), like every host collective, completes all
  // of them. On CPUs the first part does all the work.
  virtual void start_sum(Exec& exec, float* x, int64_t n) { all_reduce_sum(exec, x, n); }
  virtual void finish_sums(Exec&) {}
};

}  // namespace rodimus
