// How ranks communicate. A virtual interface, because the communicator is chosen at run time, and a
// call costs microseconds anyway.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "autograd/group.h"

namespace rodimus {

// All members except the ranks and sizes are collective: all ranks call them, in the same order,
// with the same sizes, from the thread that made the communicator. The data path, sums in device
// memory, is inherited from Group.
class Communicator : public Group {
 public:
  using Group::all_reduce_sum;
  // The rank among those that share this machine's memory.
  virtual int local_rank() const = 0;
  virtual int local_size() const = 0;

  // The communicator of the ranks that gave the same `color`, ordered by `key`, then by rank (as
  // MPI_Comm_split). It sums the same kind of memory over the same network as this one, and may
  // outlive it. Throws SharedError on every rank when any color is negative.
  std::unique_ptr<Communicator> split(int color, int key);

  // Host values, the control path.
  virtual void all_reduce_sum(std::span<double> x) = 0;
  virtual void all_reduce_max(std::span<int64_t> x) = 0;
  virtual void broadcast(std::span<std::byte> bytes, int root) = 0;
  virtual void barrier() = 0;

  // Ends the whole job at once, not only the ranks of a group, because other ranks may be waiting
  // in a collective.
  [[noreturn]] virtual void abort(int exit_code) = 0;

 private:
  virtual std::unique_ptr<Communicator> group_of(int color, int key) = 0;  // color >= 0 everywhere
};

std::unique_ptr<Communicator> make_single();

// MPI on host memory. Calls MPI_Init_thread (MPI_THREAD_FUNNELED), and MPI_Finalize when destroyed,
// so there is one per process. Without mpirun it is a single rank. Each sum is ((x_0 + x_1) + x_2)
// + ... in rank order, whatever n and the position in the array: cutting an array into different
// buckets changes no bits. Extra memory: 4 MiB. Throws Error when an MPI call fails, when called
// from another thread, when several ranks try to sum GPU memory (that needs make_nccl), and when
// another MPI's launcher started several ranks that cannot see each other (each would train alone
// and write the same files).
std::unique_ptr<Communicator> make_mpi(int* argc, char*** argv);

// Opens the GPU of this rank: the ranks of a machine take the visible GPUs in turn. A launcher may
// also make a single, different GPU visible to each rank. Throws Error when there is none, so call
// it in together(). make_nccl checks that no two ranks have the same GPU. Not collective.
Cuda open_gpu(const Communicator& communicator);

// NCCL for sums in GPU memory; host values go through `control`, which must outlive this
// communicator, but not groups split from it, which have their own control. A sum waits for the
// work queued on gpu.stream and runs on a separate stream; work queued on gpu.stream after
// all_reduce_sum() or finish_sums() waits for the sum. Every host collective first waits for the
// sums, so that a network failure gives an Error and not a hang.
//
// Order of the sums: NCCL guarantees none. Its rings and trees depend on the machines, the
// placement of ranks on them, its version and n; as long as these stay the same, runs are bitwise
// repeatable. Cutting an array differently changes the rounding. Sums computed by NVLink switches
// (NVLS) have differed even between calls (github.com/NVIDIA/nccl, issue 1497), so a resumed run
// would differ from one that never stopped: this function sets NCCL_NVLS_ENABLE=0 in the
// environment unless the variable is already set. Setting it to 1 gives up repeatability.
//
// A rank that is in several groups must start their sums in the same order as the other ranks, and
// finish those of one group before starting those of another: kernels of two NCCL communicators
// that wait for each other's multiprocessors deadlock.
//
// Throws SharedError on every rank when two ranks have the same GPU, and Error with NCCL's own text
// when a call fails; other ranks may then be waiting, so end the job with abort().
std::unique_ptr<Communicator> make_nccl(Communicator& control, const Cuda& gpu);

// How many processes the launcher says it started; 0 without a launcher. This and the next two
// throw Error when a launcher's variable (Open MPI, MPICH, Slurm) is not a number.
int64_t ranks_by_launcher();

// This process's rank according to the launcher's environment variables; 0 without a launcher. For
// messages before (or without) a communicator.
int launcher_rank();

// Whether, according to the environment, an MPI launcher (Open MPI, MPICH, Slurm PMI/PMIx) started
// this process.
bool launched_by_mpi();

// The text of `root`, on every rank. At most 2^31 - 1 bytes.
std::string broadcast_text(Communicator& communicator, std::string text, int root);

// An error every rank agreed on: all ranks throw it, so none is left waiting and one rank can
// report it for all.
class SharedError : public Error {
 public:
  using Error::Error;
};

// Runs `step` on every rank, then agrees on the outcome: if it threw on any rank, every rank throws
// SharedError with the message of the lowest failing rank (prefixed "rank R: " unless all ranks
// failed with the same message). For set-up steps, where a single rank may meet a missing file:
// without agreement the others would hang in the next collective. `step` must not call collectives
// unless all ranks reach them. Costs one all_reduce_max when nothing failed.
void together(Communicator& communicator, const std::function<void()>& step);

// Throws SharedError on every rank when the hashes differ, naming the ranks that differ from rank 0
// and `what`.
void require_identical(Communicator& communicator, uint64_t hash, const std::string& what);

}  // namespace rodimus
