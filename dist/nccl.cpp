// NCCL: sums over the GPUs of several ranks. NCCL knows nothing about how processes start, so a
// host communicator (MPI) distributes its id to the ranks and does everything except sums in GPU
// memory.
#include <nccl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <future>
#include <map>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "dist/communicator.h"
#include "kernels/cuda/runtime.h"

namespace rodimus {
namespace {

struct Destroy {
  void operator()(cudaStream_t stream) const { (void)cudaStreamDestroy(stream); }
  void operator()(cudaEvent_t event) const { (void)cudaEventDestroy(event); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, Destroy>;
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, Destroy>;

Stream make_stream() {
  cudaStream_t stream = nullptr;
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

Event make_event() {
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return Event(event);
}

// Settings of NCCL, which reads its environment once: this must run before the first call. The sums
// of NVLink switches may differ from call to call (see make_nccl). Connections are made at the
// start, for every algorithm, and not where a sum first needs one: their buffers would come when
// the memory of a step is at its peak.
void settle_environment() {
  constexpr int kKeep = 0;  // the user's setting wins
  for (const char* name : {"NCCL_NVLS_ENABLE", "NCCL_RUNTIME_CONNECT"})
    CHECK(setenv(name, "0", kKeep) == 0, name,
          "=0 cannot be put into the environment: ", std::strerror(errno));
}

class Nccl final : public Communicator {
 public:
  Nccl(Communicator& control, int device) : control_(control), device_(device) {
    ncclUniqueId id{};
    cudaDeviceProp properties{};
    together(control_, [&] {
      settle_environment();
      CUDA_CHECK(cudaSetDevice(device_));  // NCCL uses the current device
      CUDA_CHECK(cudaGetDeviceProperties(&properties, device_));
      stream_ = make_stream();
      before_ = make_event();
      after_ = make_event();
      if (rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    });
    require_own_gpu(properties);
    control_.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
    check(ncclCommInitRank(&comm_, world_size(), id, rank()), "ncclCommInitRank");
    try {
      warm_up();
    } catch (const std::exception&) {
      stop();
      throw;
    }
  }

  Nccl(std::unique_ptr<Communicator> control, int device) : Nccl(*control, device) {
    own_control_ = std::move(control);
  }

  ~Nccl() override {
    // A rank that exits because of an error must not wait for the others, which may never arrive.
    bool orderly = !failed_ && std::uncaught_exceptions() == 0;
    try {
      if (orderly) wait_for_sums();
    } catch (const std::exception&) {
      orderly = false;  // nobody needs these sums any more
    }
    if (orderly) {
      (void)ncclCommDestroy(comm_);
    } else {
      stop();
    }
  }
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  int rank() const override { return control_.rank(); }
  int world_size() const override { return control_.world_size(); }
  int local_rank() const override { return control_.local_rank(); }
  int local_size() const override { return control_.local_size(); }

  void all_reduce_sum(Cpu& cpu, float* x, int64_t n) override {
    wait_for_sums();
    control_.all_reduce_sum(cpu, x, n);
  }

  void all_reduce_sum(Cuda& gpu, float* x, int64_t n) override {
    start(gpu, x, n);
    finish(gpu);
  }
  void start_sum(Exec& exec, float* x, int64_t n) override {
    if (auto* gpu = std::get_if<Cuda>(&exec))
      start(*gpu, x, n);
    else
      Communicator::start_sum(exec, x, n);
  }
  void finish_sums(Exec& exec) override {
    if (auto* gpu = std::get_if<Cuda>(&exec)) finish(*gpu);
  }

  void all_reduce_sum(std::span<double> x) override {
    wait_for_sums();
    control_.all_reduce_sum(x);
  }
  void all_reduce_max(std::span<int64_t> x) override {
    wait_for_sums();
    control_.all_reduce_max(x);
  }
  void broadcast(std::span<std::byte> bytes, int root) override {
    wait_for_sums();
    control_.broadcast(bytes, root);
  }
  void barrier() override {
    wait_for_sums();
    control_.barrier();
  }

  [[noreturn]] void abort(int exit_code) override {
    stop();
    control_.abort(exit_code);
    std::_Exit(exit_code);  // g++ does not see that a virtual function never returns
  }

 private:
  std::unique_ptr<Communicator> group_of(int color, int key) override {
    return std::make_unique<Nccl>(control_.split(color, key), device_);
  }

  void start(Cuda& gpu, float* x, int64_t n) {
    CHECK(gpu.device == device_, "all_reduce_sum: memory of GPU ", gpu.device,
          ", but the communicator was made for GPU ", device_);
    if (n == 0) return;
    CUDA_CHECK(cudaEventRecord(before_.get(), gpu.stream));
    CUDA_CHECK(cudaStreamWaitEvent(stream_.get(), before_.get(), 0));
    check(ncclAllReduce(x, x, static_cast<size_t>(n), ncclFloat, ncclSum, comm_, stream_.get()),
          "ncclAllReduce");
    CUDA_CHECK(cudaEventRecord(after_.get(), stream_.get()));
  }
  void finish(Cuda& gpu) { CUDA_CHECK(cudaStreamWaitEvent(gpu.stream, after_.get(), 0)); }

  // What NCCL still allocates at the first sum (its kernels; where the user or an older version
  // connects late, the buffers of a connection) it allocates here. This kind of sum is the only
  // one.
  void warm_up() {
    float* x = nullptr;
    CUDA_CHECK(cudaMalloc(reinterpret_cast<void**>(&x), sizeof(float)));
    const std::unique_ptr<float, decltype(&cudaFree)> owner(x, cudaFree);
    CUDA_CHECK(cudaMemsetAsync(x, 0, sizeof(float), stream_.get()));
    check(ncclAllReduce(x, x, 1, ncclFloat, ncclSum, comm_, stream_.get()), "ncclAllReduce");
    CUDA_CHECK(cudaEventRecord(after_.get(), stream_.get()));
    wait_for_sums();
  }

  // With two ranks on one GPU, NCCL may hang instead of failing.
  void require_own_gpu(const cudaDeviceProp& properties) {
    using Id = std::array<int64_t, 2>;
    Id own;
    static_assert(sizeof(own) == sizeof(properties.uuid));
    std::memcpy(own.data(), &properties.uuid, sizeof(own));

    std::vector<int64_t> words(2 * static_cast<size_t>(world_size()), INT64_MIN);
    std::copy(own.begin(), own.end(), words.begin() + 2 * rank());
    control_.all_reduce_max(words);
    std::map<Id, int> owners;
    for (int other = 0; other < world_size(); ++other) {
      const size_t at = 2 * static_cast<size_t>(other);
      const auto [owner, is_new] = owners.try_emplace(Id{words[at], words[at + 1]}, other);
      if (is_new) continue;
      throw SharedError(concat("ranks ", owner->second, " and ", other,
                               " have the same GPU; start at most one rank per GPU of a machine "
                               "(mpirun -n, or -N for each machine), or give each rank its own by "
                               "CUDA_VISIBLE_DEVICES"));
    }
  }

  void check(ncclResult_t result, const char* call) {
    if (result == ncclSuccess) [[likely]]
      return;
    failed_ = true;
    const std::string cause = ncclGetLastError(comm_);
    fail("NCCL on rank ", rank(), " of ", world_size(), " (GPU ", device_, "): ", call, ": ",
         ncclGetErrorString(result), cause.empty() ? "" : ": " + cause,
         "; NCCL_DEBUG=INFO in the environment shows the details, NCCL_SOCKET_IFNAME selects "
         "the network to use");
  }

  // The host waits here, not inside the CUDA runtime, which would wait forever for a sum whose
  // other ranks are gone: NCCL notices this in its own thread and reports it only when asked.
  void wait_for_sums() {
    cudaError_t state;
    while ((state = cudaEventQuery(after_.get())) == cudaErrorNotReady) {
      ncclResult_t result = ncclSuccess;
      check(ncclCommGetAsyncError(comm_, &result), "ncclCommGetAsyncError");
      check(result == ncclInProgress ? ncclSuccess : result, "a sum over the ranks");
      std::this_thread::yield();
    }
    CUDA_CHECK(state);
  }

  // Ends sums that are waiting for other ranks. ncclCommAbort waits for their kernels to exit; the
  // time limit keeps a GPU that no longer responds from stopping this rank from ending the job.
  void stop() {
    const ncclComm_t comm = std::exchange(comm_, nullptr);
    if (comm == nullptr) return;
    std::promise<void> stopped;
    const std::future<void> waiter = stopped.get_future();
    std::thread([comm, stopped = std::move(stopped)]() mutable {
      (void)ncclCommAbort(comm);
      stopped.set_value();
    }).detach();
    waiter.wait_for(std::chrono::seconds(10));
  }

  std::unique_ptr<Communicator> own_control_;  // only in a group made by split()
  Communicator& control_;
  int device_;
  Stream stream_;
  Event before_, after_;  // of the last sum: the work it waits for, and its completion
  ncclComm_t comm_ = nullptr;
  bool failed_ = false;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl(Communicator& control, const Cuda& gpu) {
  return std::make_unique<Nccl>(control, gpu.device);
}

}  // namespace rodimus
