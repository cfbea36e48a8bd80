// How ranks talk. The one virtual interface of the project: which communicator runs is known only
// at run time, and a call costs microseconds anyway.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "autograd/group.h"

namespace rodimus {

// Every member but the sizes is collective: all ranks call it, in the same order, with the same
// sizes, from the thread that made the communicator. The data path, sums in memory of the device,
// is that of a Group.
class Communicator : public Group {
 public:
  using Group::all_reduce_sum;
  // Among the ranks that share this machine's memory.
  virtual int local_rank() const = 0;
  virtual int local_size() const = 0;

  // The communicator of those ranks that gave the same `color`, in the order of their `key`, and of
  // their rank where keys are equal (MPI_Comm_split). It sums the same memory over the same network
  // as this one, and may outlive it. Throws SharedError on every rank when the color of one is
  // negative.
  std::unique_ptr<Communicator> split(int color, int key);

  // Host values, the control path.
  virtual void all_reduce_sum(std::span<double> x) = 0;
  virtual void all_reduce_max(std::span<int64_t> x) = 0;
  virtual void broadcast(std::span<std::byte> bytes, int root) = 0;
  virtual void barrier() = 0;

  // Ends the whole job, not the ranks of a group alone, at once, for the case that other ranks may
  // be waiting in a collective.
  [[noreturn]] virtual void abort(int exit_code) = 0;

 private:
  virtual std::unique_ptr<Communicator> group_of(int color, int key) = 0;  // color >= 0 everywhere
};

std::unique_ptr<Communicator> make_single();

// MPI on host memory. Calls MPI_Init_thread (MPI_THREAD_FUNNELED), and MPI_Finalize when destroyed,
// so one per process. Works without mpirun as one rank. Each sum is ((x_0 + x_1) + x_2) + ... in
// rank order, whatever n and the position in the array: cutting an array into other buckets does
// not change a bit. Extra memory: 4 MiB. Throws Error when an MPI call fails, when called from
// another thread, when several ranks shall sum GPU memory (that takes make_nccl), and when a
// launcher of another MPI started several ranks that cannot see each other (each would train alone
// and write the same files).
std::unique_ptr<Communicator> make_mpi(int* argc, char*** argv);

// The GPU of this rank, opened: the ranks of a machine take those that they see in turn. A launcher
// may also show each rank one of its own. Throws Error when there is none, so call it in
// together(). Whether two ranks have the same one is seen by make_nccl. Not collective.
Cuda open_gpu(const Communicator& communicator);

// NCCL for sums in GPU memory; host values go through `control`, which must outlive it, but not the
// groups that are split off: they have a control of their own. A sum waits
// for the work that is queued on gpu.stream and runs on a stream of its own; what is queued on
// gpu.stream after all_reduce_sum() or finish_sums() waits for the sum. Every host collective first
// waits for the sums, so that a failure of the network ends it with an Error and not with a hang.
//
// Order of the sums: NCCL promises none. Its rings and trees follow from the machines, the place of
// the ranks on them, its version and n; while these stay, a run repeats the bits of another.
// Cutting an array in another way changes the rounding. The sums that NVLink switches compute
// (NVLS) have differed even between calls (github.com/NVIDIA/nccl, issue 1497), and a resumed run
// would not repeat the bits of one that never stopped: this sets NCCL_NVLS_ENABLE=0 in the
// environment of the process, unless it holds that variable. Whoever sets it to 1 gives that up.
//
// A rank that is in several groups starts their sums in the same order as the other ranks do, and
// finishes those of one group before it starts those of another: kernels of two NCCL communicators
// that wait for each other's multiprocessors never end.
//
// Throws SharedError on every rank when two ranks have the same GPU, Error with NCCL's own text
// when a call fails; other ranks may then be waiting, so the job must be ended (abort()).
std::unique_ptr<Communicator> make_nccl(Communicator& control, const Cuda& gpu);

// How many processes the launcher says it started; 0 without a launcher. This and the next two
// throw Error when a variable of a launcher (Open MPI, MPICH, Slurm) holds no number.
int64_t ranks_by_launcher();

// This process's rank as the launcher put it into the environment; 0 without a launcher. For
// messages before (or without) a communicator.
int launcher_rank();

// True when an MPI launcher (Open MPI, MPICH, Slurm PMI/PMIx) started this process: the environment
// says so.
bool launched_by_mpi();

// The text of `root`, on every rank. At most 2^31 - 1 bytes.
std::string broadcast_text(Communicator& communicator, std::string text, int root);

// An Error that every rank throws alike, so that nobody is left waiting and one rank can speak for
// all.
class SharedError : public Error {
 public:
  using Error::Error;
};

// Runs `step` on every rank and then agrees on the outcome: if it threw anywhere, every rank throws
// SharedError with the message of the lowest failing rank (prefixed "rank R: " when not all ranks
// failed alike). For set-up steps, where one rank alone may meet a missing file: without agreement
// the others would hang in the next collective. `step` must not call collectives unless all ranks
// reach them. Costs one all_reduce_max when nothing failed.
void together(Communicator& communicator, const std::function<void()>& step);

// Throws SharedError on every rank when the hashes differ, naming the ranks that differ from rank 0
// and `what`.
void require_identical(Communicator& communicator, uint64_t hash, const std::string& what);

}  // namespace rodimus
