#include "train/placement.h"

#include <fmt/format.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "kernels/device.h"
#include "train/cpu_quota.h"

namespace rodimus {
namespace {

cpu_set_t mask_of(pid_t process) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(process, sizeof(mask), &mask) != 0) CPU_ZERO(&mask);
  return mask;
}

// Whether the binding is Open MPI's own choice: neither the command line nor the environment names
// one.
bool bound_by_default() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") && !std::getenv("OMPI_MCA_hwloc_base_binding_policy");
}

// Binds this process to the local_rank-th of local_size equal, contiguous parts of `all`.
bool take_part(const cpu_set_t& all, int part, int local_rank) {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  for (int core = 0, index = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &all)) continue;
    if (index++ / part == local_rank) CPU_SET(core, &mine);
  }
  return sched_setaffinity(0, sizeof(mine), &mine) == 0;
}

// Cores per rank, before applying the quota of a container.
int available_cores(const Communicator& communicator) {
  const cpu_set_t own = mask_of(0);
  const int cores = std::max(1, CPU_COUNT(&own));
  if (!launched_by_mpi()) return cores;
  const cpu_set_t all = mask_of(getppid());  // the launcher's daemon on this machine
  const int part = std::max(1, CPU_COUNT(&all) / communicator.local_size());
  if (cores >= part) return part;
  return bound_by_default() && take_part(all, part, communicator.local_rank()) ? part : cores;
}

Cpu place_threads(int threads, const Communicator& communicator) {
  if (threads < 0 || threads > 4096)
    fail("run.threads = ", threads, ": must be 0 (automatic) to 4096");
  const int cores = available_cores(communicator), ranks = communicator.local_size();
  const double quota = cpu_quota();
  const std::string limited = describe_quota(quota, cores, ranks);
  if (threads == 0 && !limited.empty() && communicator.rank() == 0)
    fmt::print(stderr, "rodimus: {}\n", limited);
  const Cpu cpu{threads > 0 ? threads : threads_within(quota, cores, ranks)};
  omp_set_num_threads(cpu.threads);
  omp_set_dynamic(0);
  return cpu;
}

}  // namespace

Exec place_rank(const std::string& device, int threads, const Communicator& communicator) {
  const Cpu cpu = place_threads(threads, communicator);
  if (device == "cpu") return cpu;
  if (device != "cuda" && device != "auto")
    fail("run.device = \"", device, "\": must be \"cpu\", \"cuda\" or \"auto\"");
  const Gpus gpus = find_gpus();
  if (gpus.count > 0) return exec_of(open_gpu(communicator));
  if (device == "auto") return cpu;
  fail("run.device = \"cuda\", but there is no GPU: ", gpus.reason,
       "; use \"cpu\", or \"auto\" to use a GPU only if there is one");
}

Place place_ranks(const std::string& device, int threads, Communicator& communicator) {
  Exec exec;
  together(communicator, [&] { exec = place_rank(device, threads, communicator); });
  require_identical(communicator, static_cast<uint64_t>(device_of(exec)),
                    "device (some ranks have a GPU and others do not; choose one with run.device)");
  std::unique_ptr<Communicator> nccl;
  on_device(exec, [&]<class Backend>(const Backend& backend) {
    if constexpr (std::is_same_v<Backend, Cuda>) {
      if (communicator.world_size() > 1) nccl = make_nccl(communicator, backend);
    }
  });
  Communicator* sums = nccl ? nccl.get() : &communicator;
  return {exec, std::move(nccl), sums};
}

Circumstances circumstances_of(const Place& place) {
  const Cpu* const cpu = std::get_if<Cpu>(&place.exec);
  return {.device = device_of(place.exec),
          .ranks = place.communicator->world_size(),
          .threads = cpu ? cpu->threads : 0};
}

std::string describe_device(const std::string& device, const Exec& exec) {
  if (const Cpu* cpu = std::get_if<Cpu>(&exec)) {
    return concat(cpu->threads, cpu->threads == 1 ? " thread" : " threads", " on the CPU",
                  device == "auto" ? concat(" (auto: no GPU: ", find_gpus().reason, ")") : "");
  }
  return "a GPU";
}

}  // namespace rodimus
