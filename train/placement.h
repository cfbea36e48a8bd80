// How many threads a rank uses and on which cores.
#pragma once

#include <memory>
#include <string>

#include "dist/communicator.h"
#include "kernels/exec.h"
#include "train/config/config.h"

namespace rodimus {

// Where this rank computes. `device`: "cpu"; "cuda", a GPU of its machine, of which the
// ranks take one each; "auto", that where the machine has one. The host threads of the rank in
// either case: `threads` 0 is an equal share, among the ranks of this machine, of the cores that
// the launcher itself may use, and of the CPU quota of the container (cpu_quota.h), which rank 0
// says on stderr where it is less. Open MPI binds every rank to one core unless told otherwise (for
// one or two ranks); a rank that it bound so widens its own mask to its share. Masks that somebody
// chose (--bind-to, srun --cpu-bind, taskset) are kept. Also sets OpenMP's number of threads.
// Throws Error for threads < 0 or above 4096, without the GPU that was asked for, and with a GPU
// that is too old.
Exec place_rank(const std::string& device, int threads, const Communicator& communicator);

// The same on every rank of a run that trains: where this rank computes, and who sums there.
struct Place {
  Exec exec;
  std::unique_ptr<Communicator> nccl;  // for sums over several GPUs, else null
  Communicator* communicator;          // `nccl`, or the one that place_ranks() was given
};
// Collective. Throws SharedError where place_rank() throws on some rank, when some ranks have a GPU
// and others not, and when two ranks have the same one.
Place place_ranks(const std::string& device, int threads, Communicator& communicator);

// "2 threads on the CPU (auto: no GPU: the driver shows no device)", "a GPU".
// `device` as in place_rank().
std::string describe_device(const std::string& device, const Exec& exec);

// Throws Error unless `compute` is "f32", "bf16" or "auto". auto: bf16 where the device multiplies
// it in hardware (GPUs do, CPUs with AVX512_BF16), f32 elsewhere.
DType resolve_compute(const std::string& compute, Device device);

// Puts what "auto" stands for on `exec` into run.compute and run.device, so that a checkpoint tells
// what the run was computed with. Threads stay as written: how many there are is a matter of each
// machine (RunState::threads).
void resolve_for_device(Config& config, const Exec& exec);

// Whether the device multiplies bf16 in hardware.
bool has_native_bf16(Device device);

// "f32", and why: "f32 (auto: this CPU has no AVX512_BF16)". `compute` as in resolve_compute().
std::string describe_compute(const std::string& compute, Device device);

}  // namespace rodimus
