// Where a rank computes: its device, its number of threads and their cores.
#pragma once

#include <memory>
#include <string>

#include "dist/communicator.h"
#include "train/config/resolve.h"

namespace rodimus {

// Decides where this rank computes. `device`: "cpu"; "cuda", a GPU of its own; "auto", a GPU if the
// machine has one, else the CPU. `threads` is the number of host threads in either case; 0 is an
// equal share, among the ranks of this machine, of the cores that the launcher itself may use, and
// of the container's CPU quota (cpu_quota.h) if that is smaller, which rank 0 reports on stderr. By
// default Open MPI binds each rank to one core (with one or two ranks); a rank bound this way
// widens its mask to its share. Masks that the user chose (--bind-to, srun --cpu-bind, taskset) are
// kept. Also sets OpenMP's number of threads. Throws Error for threads < 0 or above 4096, if a
// required GPU is missing, and for a GPU that is too old.
Exec place_rank(const std::string& device, int threads, const Communicator& communicator);

// The placement of a training rank: where it computes, and what sums over the ranks there.
struct Place {
  Exec exec;
  std::unique_ptr<Communicator> nccl;  // for sums over several GPUs; null otherwise
  Communicator* communicator;          // `nccl`, or the one passed to place_ranks()
};
// Collective. Throws SharedError if place_rank() throws on any rank, if some ranks have a GPU and
// others do not, and if two ranks have the same one.
Place place_ranks(const std::string& device, int threads, Communicator& communicator);

// What resolve() needs to know about `place`.
Circumstances circumstances_of(const Place& place);

// "2 threads on the CPU (auto: no GPU: the driver shows no device)", "a GPU".
// `device` as in place_rank().
std::string describe_device(const std::string& device, const Exec& exec);

}  // namespace rodimus
