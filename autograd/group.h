// The ranks that an op works together with, as far as ops know them: autograd sums over a group and
// does not ask what connects its ranks. dist/ implements it.
#pragma once

#include "kernels/exec.h"

namespace rodimus {

// Every member but rank() and world_size() is collective: all ranks of the group call it, in the
// same order, with the same sizes, from the thread that made the group.
class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;

  // x[i] = sum over the ranks of x[i]; memory of the device. Every rank gets the same bits; on what
  // else they depend is said at make_mpi and make_nccl in dist/communicator.h. On the GPU the sum
  // is queued, as kernels are.
  virtual void all_reduce_sum(Cpu&, float* x, int64_t n) = 0;
  virtual void all_reduce_sum(Cuda&, float* x, int64_t n) = 0;
  void all_reduce_sum(Exec& exec, float* x, int64_t n) {
    on_device(exec, [&](auto& backend) { all_reduce_sum(backend, x, n); });
  }
  // The same in two parts, so that a GPU computes meanwhile: between them nothing may touch x.
  // Several sums may be under way; finish_sums() is for all of them, and so is every host
  // collective. Where ranks compute on CPUs the first part does all.
  virtual void start_sum(Exec& exec, float* x, int64_t n) { all_reduce_sum(exec, x, n); }
  virtual void finish_sums(Exec&) {}
};

}  // namespace rodimus
