// How many threads a rank uses and on which cores.
#pragma once

#include <memory>
#include <string>

#include "dist/communicator.h"
#include "train/config/resolve.h"

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

// What resolve() needs to know of it.
Circumstances circumstances_of(const Place& place);

// "2 threads on the CPU (auto: no GPU: the driver shows no device)", "a GPU".
// `device` as in place_rank().
std::string describe_device(const std::string& device, const Exec& exec);

}  // namespace rodimus
