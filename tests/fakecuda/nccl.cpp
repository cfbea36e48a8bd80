// NCCL for tests, as much of it as dist/nccl.cpp calls: the sum goes over MPI when the stream's
// turn comes. A function that is missing here is a link error.
#include "tests/fakecuda/nccl.h"

#include <mpi.h>

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "tests/fakecuda/work.h"
#include "tests/simt/emulator.h"

using namespace fakecuda;

namespace {

struct Failure {
  ncclResult_t result;
  std::string text;
};
std::map<std::string, Failure> planned;
std::optional<std::string> gone;  // planned: the rank that the next sum waits for in vain
std::string last_error;
std::vector<std::string> calls;

// What `call` returns by plan, else success.
ncclResult_t outcome(const char* call) {
  calls.emplace_back(call);
  const auto found = planned.find(call);
  if (found == planned.end()) return ncclSuccess;
  const Failure failure = found->second;
  planned.erase(found);
  last_error = failure.text;
  return failure.result;
}

struct Comm {
  MPI_Comm mpi = MPI_COMM_NULL;
  WorkPtr last;
  ncclResult_t async_error = ncclSuccess;
  bool aborted = false;
};
// Sums that were queued hold it too: an abort leaves them behind.
std::map<ncclComm_t, std::shared_ptr<Comm>> comms;
const std::shared_ptr<Comm>& comm_of(ncclComm_t handle) {
  const auto found = comms.find(handle);
  if (found == comms.end()) not_implemented("an NCCL communicator that does not exist");
  return found->second;
}

void sum_now(const Comm& comm, const float* from, float* to, size_t n) {
  if (comm.aborted) return;
  require_device(from, n * sizeof(float), "ncclAllReduce, source");
  require_device(to, n * sizeof(float), "ncclAllReduce, destination");
  MPI_Allreduce(from == to ? MPI_IN_PLACE : from, to, static_cast<int>(n), MPI_FLOAT, MPI_SUM,
                comm.mpi);
  simt::mark_written(to, n * sizeof(float));
}

}  // namespace

void fakecuda::fail_next(const std::string& call, ncclResult_t result, const std::string& text) {
  planned[call] = {result, text};
}

std::vector<std::string> fakecuda::take_calls() { return std::exchange(calls, {}); }

void fakecuda::lose_rank(const std::string& text) { gone = text; }

extern "C" {

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "an error of the fake NCCL";
  }
}
const char* ncclGetLastError(ncclComm_t) { return last_error.c_str(); }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::mt19937_64 random{std::random_device{}()};
  const uint64_t number = random();
  std::memset(id, 0, sizeof(*id));
  std::memcpy(id, &number, sizeof(number));
  return outcome("ncclGetUniqueId");
}

// Ranks with one id make a communicator, as in NCCL; where an id is missing, an error here and a
// hang there.
ncclResult_t ncclCommInitRank(ncclComm_t* handle, int ranks, ncclUniqueId id, int rank) {
  if (const ncclResult_t result = outcome("ncclCommInitRank"); result != ncclSuccess) return result;
  uint64_t number = 0;
  std::memcpy(&number, &id, sizeof(number));
  auto comm = std::make_shared<Comm>();
  MPI_Comm_split(MPI_COMM_WORLD, static_cast<int>(number % 0x7fffffff), rank, &comm->mpi);
  int size = 0, place = 0;
  MPI_Comm_size(comm->mpi, &size);
  MPI_Comm_rank(comm->mpi, &place);
  if (size != ranks || place != rank) {
    last_error = "the ranks were not given one id";
    return ncclInvalidArgument;
  }
  *handle = reinterpret_cast<ncclComm_t>(comm.get());
  comms[*handle] = std::move(comm);
  return ncclSuccess;
}

// Waits for the sums, and for the other ranks, as in NCCL.
ncclResult_t ncclCommDestroy(ncclComm_t handle) {
  const std::shared_ptr<Comm> comm = comm_of(handle);
  finish(comm->last);
  MPI_Comm_free(&comm->mpi);
  comms.erase(handle);
  return ncclSuccess;
}

// MPI_Comm_free would wait for the other ranks.
ncclResult_t ncclCommAbort(ncclComm_t handle) {
  comm_of(handle)->aborted = true;
  give_up_on_gone_ranks();
  comms.erase(handle);
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t* result) {
  *result = comm_of(handle)->async_error;
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* from, void* to, size_t n, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t handle, cudaStream_t stream) {
  if (const ncclResult_t result = outcome("ncclAllReduce"); result != ncclSuccess) return result;
  if (type != ncclFloat || operation != ncclSum) not_implemented("ncclAllReduce of this kind");
  const std::shared_ptr<Comm>& comm = comm_of(handle);
  if (gone) {
    comm->async_error = ncclRemoteError;
    last_error = *std::exchange(gone, std::nullopt);
    comm->last = enqueue(
        stream_of(stream), "ncclAllReduce with a rank that is gone", [] {}, Ranks::gone);
    return ncclSuccess;
  }
  // The sums of one communicator keep their order on whatever streams they are.
  if (comm->last) stream_of(stream).also_after.push_back(comm->last);
  comm->last = enqueue(
      stream_of(stream), "ncclAllReduce",
      [=] { sum_now(*comm, static_cast<const float*>(from), static_cast<float*>(to), n); },
      Ranks::all);
  return ncclSuccess;
}

}  // extern "C"
