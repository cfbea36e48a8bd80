#include "train/placement.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>

#include "dist/communicator.h"

namespace rodimus {
namespace {

int from_environment(std::initializer_list<const char*> names, int otherwise) {
  for (const char* name : names) {
    if (const char* text = std::getenv(name)) return std::max(0, std::atoi(text));
  }
  return otherwise;
}

// Widens the mask to all that the kernel lets us have, then takes an equal, contiguous share.
int take_share(int local_rank, int local_size) {
  cpu_set_t all;
  CPU_ZERO(&all);
  for (int i = 0; i < CPU_SETSIZE; ++i) CPU_SET(i, &all);
  if (sched_setaffinity(0, sizeof(all), &all) != 0 || sched_getaffinity(0, sizeof(all), &all) != 0)
    return 1;
  const int cores = CPU_COUNT(&all), share = std::max(1, cores / local_size);
  if (share * local_size > cores) return 1;  // more ranks than cores: leave placement to the kernel
  cpu_set_t mine;
  CPU_ZERO(&mine);
  for (int i = 0, index = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &all)) continue;
    if (index / share == local_rank) CPU_SET(i, &mine);
    ++index;
  }
  sched_setaffinity(0, sizeof(mine), &mine);
  return share;
}

}  // namespace

Cpu place_threads(int threads) {
  if (threads < 0 || threads > 4096)
    fail("run.threads = ", threads, ": must be 0 (automatic) to 4096");
  int available = 1;
  if (launched_by_mpi()) {
    const int local_size = from_environment(
        {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE"}, 1);
    const int local_rank =
        from_environment({"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"}, 0);
    available = take_share(local_rank, std::max(1, local_size));
  } else {
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof(mask), &mask) == 0) available = CPU_COUNT(&mask);
  }
  const Cpu cpu{threads > 0 ? threads : available};
  omp_set_num_threads(cpu.threads);
  omp_set_dynamic(0);
  return cpu;
}

DType resolve_compute(const std::string& compute) {
  if (compute == "f32") return DType::f32;
  if (compute == "bf16") return DType::bf16;
  if (compute != "auto")
    fail("run.compute = \"", compute, "\": must be \"f32\", \"bf16\" or \"auto\"");
  return __builtin_cpu_supports("avx512bf16") ? DType::bf16 : DType::f32;
}

}  // namespace rodimus
