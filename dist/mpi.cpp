// MPI on host memory. A sum is a reduce-scatter and an all-gather: rank r receives everyone's share
// r, adds the shares in rank order, and sends the result to all. MPI does no arithmetic, because
// its choice of algorithm (and so of order) depends on the library, the number of ranks and the
// count.
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "dist/communicator.h"

namespace rodimus {
namespace {

// Sums are computed in chunks whose received shares take this much memory and stay in cache until
// they are added; this also keeps MPI's int counts small. Measured for 8M floats in shared memory
// on 2 cores: 2 ranks 12 ms with 4 MiB, 24 ms with 16 MiB, 33 ms by MPI_Allreduce; 3 ranks 37, 40
// and 73 ms.
constexpr int64_t kChunkBytes = 4 << 20;
constexpr int64_t kBroadcastBytes = int64_t{1} << 30;

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
  fail(call, ": ", std::string(text, static_cast<size_t>(length)), " (code ", code, ")");
}

template <class T>
MPI_Datatype mpi_type();
template <>
MPI_Datatype mpi_type<float>() {
  return MPI_FLOAT;
}
template <>
MPI_Datatype mpi_type<double>() {
  return MPI_DOUBLE;
}

// out[i] = ((shares_0[i] + shares_1[i]) + shares_2[i]) + ..., where the shares lie one after
// another in `shares`, except that the share of rank `own` is in `out`.
template <class T>
void sum_in_rank_order(T* out, const T* shares, int64_t n, int own, int world_size, int threads) {
  constexpr int64_t kBlock = 1024;  // out stays in L1 while all ranks are added to it
  const int64_t blocks = (n + kBlock - 1) / kBlock;
#pragma omp parallel for num_threads(threads) if (threads > 1 && blocks > 16)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = block * kBlock, count = std::min(kBlock, n - begin);
    T* const target = out + begin;
    T sum[kBlock];
    for (int rank = 0; rank < world_size; ++rank) {
      const T* const source = rank == own ? target : shares + rank * n + begin;
      if (rank == 0) {
        std::copy_n(source, count, sum);
      } else {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) sum[i] += source[i];
      }
    }
    std::copy_n(sum, count, target);
  }
}

// The process's MPI session, from MPI_Init to MPI_Finalize; its communicators keep it alive.
class Session {
 public:
  Session(int* argc, char*** argv) {
    int initialized = 0;
    check_mpi(MPI_Initialized(&initialized), "MPI_Initialized");
    CHECK(initialized == 0, "make_mpi: MPI is already initialised; one communicator per process");
    int provided = 0;
    check_mpi(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    if (provided < MPI_THREAD_FUNNELED) {
      fail("this MPI library cannot be used by a program with threads (MPI_THREAD_FUNNELED)");
    }
  }
  ~Session() { MPI_Finalize(); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void check_thread() const {
    CHECK(std::this_thread::get_id() == thread_,
          "MPI was called from another thread than the one that initialised it");
  }

 private:
  std::thread::id thread_ = std::this_thread::get_id();
};

class Mpi final : public Communicator {
 public:
  // Takes ownership of `comm`.
  Mpi(std::shared_ptr<const Session> session, MPI_Comm comm)
      : session_(std::move(session)), comm_(comm) {
    check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(comm_, &world_size_), "MPI_Comm_size");
    MPI_Comm node = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
              "MPI_Comm_split_type");
    check_mpi(MPI_Comm_rank(node, &local_rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(node, &local_size_), "MPI_Comm_size");
    MPI_Comm_free(&node);
  }

  ~Mpi() override { MPI_Comm_free(&comm_); }
  Mpi(const Mpi&) = delete;
  Mpi& operator=(const Mpi&) = delete;

  int rank() const override { return rank_; }
  int world_size() const override { return world_size_; }
  int local_rank() const override { return local_rank_; }
  int local_size() const override { return local_size_; }

  void all_reduce_sum(Cpu& cpu, float* x, int64_t n) override { sum(x, n, cpu.threads); }

  void all_reduce_sum(Cuda&, float*, int64_t) override {
    CHECK(world_size_ == 1, "all_reduce_sum: MPI sums host memory only; GPU memory needs NCCL");
  }

  void all_reduce_sum(std::span<double> x) override {
    sum(x.data(), static_cast<int64_t>(x.size()), 1);
  }

  void all_reduce_max(std::span<int64_t> x) override {
    check_thread();
    check_mpi(
        MPI_Allreduce(MPI_IN_PLACE, x.data(), narrow<int>(x.size()), MPI_INT64_T, MPI_MAX, comm_),
        "MPI_Allreduce");
  }

  void broadcast(std::span<std::byte> bytes, int root) override {
    check_thread();
    CHECK(root >= 0 && root < world_size_, "broadcast: root = ", root, " of ", world_size_);
    const auto size = static_cast<int64_t>(bytes.size());
    for (int64_t begin = 0; begin < size; begin += kBroadcastBytes) {
      const int64_t count = std::min(kBroadcastBytes, size - begin);
      check_mpi(MPI_Bcast(bytes.data() + begin, static_cast<int>(count), MPI_BYTE, root, comm_),
                "MPI_Bcast");
    }
  }

  void barrier() override {
    check_thread();
    check_mpi(MPI_Barrier(comm_), "MPI_Barrier");
  }

  [[noreturn]] void abort(int exit_code) override {
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::_Exit(exit_code);  // MPI_Abort is not marked noreturn
  }

 private:
  std::unique_ptr<Communicator> group_of(int color, int key) override {
    check_thread();
    MPI_Comm group = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split(comm_, color, key, &group), "MPI_Comm_split");
    return std::make_unique<Mpi>(session_, group);
  }

  void check_thread() const { session_->check_thread(); }

  template <class T>
  void sum(T* x, int64_t n, int threads) {
    check_thread();
    if (world_size_ == 1) return;
    const int64_t chunk = kChunkBytes / static_cast<int64_t>(sizeof(T));
    for (int64_t begin = 0; begin < n; begin += chunk) {
      sum_chunk(x + begin, std::min(chunk, n - begin), threads);
    }
  }

  template <class T>
  void sum_chunk(T* x, int64_t n, int threads) {
    const auto ranks = static_cast<size_t>(world_size_);
    // Shares are whole cache lines; the last ones may be short or empty.
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    const int64_t lines = (n + kLine - 1) / kLine;
    const int64_t share = (lines + world_size_ - 1) / world_size_ * kLine;
    counts_.resize(ranks);
    offsets_.resize(ranks);
    for (size_t rank = 0; rank < ranks; ++rank) {
      const int64_t begin = std::min(n, static_cast<int64_t>(rank) * share);
      offsets_[rank] = static_cast<int>(begin);
      counts_[rank] = static_cast<int>(std::min(n - begin, share));
    }
    const int64_t own = counts_[static_cast<size_t>(rank_)];
    T* const own_share = x + offsets_[static_cast<size_t>(rank_)];

    received_.resize(std::max(received_.size(), static_cast<size_t>(own) * ranks * sizeof(T)));
    T* const shares = reinterpret_cast<T*>(received_.data());
    requests_.clear();
    for (int step = 1; step < world_size_; ++step) {
      const int from = (rank_ + world_size_ - step) % world_size_;
      receive(shares + from * own, own, from);
    }
    for (int step = 1; step < world_size_; ++step) {
      const int to = (rank_ + step) % world_size_;
      send(x + offsets_[static_cast<size_t>(to)], counts_[static_cast<size_t>(to)], to);
    }
    wait();
    sum_in_rank_order(own_share, shares, own, rank_, world_size_, threads);
    for (int step = 1; step < world_size_; ++step) {
      const int from = (rank_ + world_size_ - step) % world_size_;
      receive(x + offsets_[static_cast<size_t>(from)], counts_[static_cast<size_t>(from)], from);
    }
    for (int step = 1; step < world_size_; ++step) {
      send(own_share, own, (rank_ + step) % world_size_);
    }
    wait();
  }

  template <class T>
  void receive(T* to, int64_t count, int from) {
    if (count == 0) return;
    check_mpi(MPI_Irecv(to, static_cast<int>(count), mpi_type<T>(), from, 0, comm_,
                        &requests_.emplace_back()),
              "MPI_Irecv");
  }

  template <class T>
  void send(const T* from, int64_t count, int to) {
    if (count == 0) return;
    check_mpi(MPI_Isend(from, static_cast<int>(count), mpi_type<T>(), to, 0, comm_,
                        &requests_.emplace_back()),
              "MPI_Isend");
  }

  void wait() {
    check_mpi(
        MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE),
        "MPI_Waitall");
    requests_.clear();
  }

  std::shared_ptr<const Session> session_;
  MPI_Comm comm_;
  int rank_ = 0, world_size_ = 1, local_rank_ = 0, local_size_ = 1;
  std::vector<int> counts_, offsets_;
  std::vector<std::byte> received_;
  std::vector<MPI_Request> requests_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi(int* argc, char*** argv) {
  auto session = std::make_shared<const Session>(argc, argv);
  // A separate communicator, so that messages of other code in the process cannot mix with ours.
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  auto world = std::make_unique<Mpi>(std::move(session), comm);
  if (world->world_size() == 1 && ranks_by_launcher() > 1) {
    fail("the launcher started ", ranks_by_launcher(),
         " processes, but MPI connects only 1: use the mpirun of the MPI library this program is "
         "linked with, or srun --mpi=pmix");
  }
  return world;
}

}  // namespace rodimus
