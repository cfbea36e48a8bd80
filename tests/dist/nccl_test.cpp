// Sums over the GPUs of 1, 2 and 3 ranks, in order with kernels. The kernels run on the emulator,
// the CUDA runtime and NCCL are fakes; with RODIMUS_TEST_GPU everything is real.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "kernels/convert.h"
#include "tests/dist/nccl_fixture.h"

namespace rodimus {
namespace {

using namespace testing;

INSTANTIATE_TEST_SUITE_P(Under, NcclTest, conditions(), name_of_condition);

TEST_P(NcclTest, TakesTheGpuOfTheLocalRank) {
  EXPECT_EQ(gpu.device, world().local_rank());
  EXPECT_EQ(nccl->rank(), world().rank());
  EXPECT_EQ(nccl->world_size(), world().world_size());
  EXPECT_EQ(nccl->local_rank(), world().local_rank());
  EXPECT_EQ(nccl->local_size(), world().local_size());
}

// The sums of NVLink switches may differ from run to run.
TEST_P(NcclTest, ExcludesSumsOfSwitchesUnlessTheUserDecided) {
  constexpr const char* kName = "NCCL_NVLS_ENABLE";
  for (const char* decided : {"", "1", "0"}) {
    nccl.reset();
    unsetenv(kName);
    if (*decided != '\0') setenv(kName, decided, 1);
    nccl = make_nccl(world(), gpu);
    EXPECT_STREQ(std::getenv(kName), *decided == '\0' ? "0" : decided);
  }
}

TEST_P(NcclTest, SumsInGpuMemory) {
  for (const int64_t n : {0, 1, 33, 5000}) {
    const Scratch<float> x = on_gpu(gpu, contribution(n, world().rank()));
    nccl->all_reduce_sum(gpu, x.data(), n);
    EXPECT_TRUE(is_sum(on_host(gpu, x, n), 1)) << "n = " << n;
  }
}

// A kernel doubles x before the sum and another doubles the sum after it, and all this twice,
// without waiting on the host. y holds what a kernel queued after the first sum has read.
TEST_P(NcclTest, KernelsBeforeAndAfterKeepTheirOrder) {
  constexpr int64_t n = 1000;
  const Scratch<float> x = on_gpu(gpu, contribution(n, world().rank())), y(n, Device::cuda);
  const auto twice = [&] { accumulate(gpu, x.data(), x.data(), n); };
  twice();
  nccl->all_reduce_sum(gpu, x.data(), n);
  convert(gpu, y.data(), x.data(), n);
  fill(gpu, x.data(), 0, n);
  accumulate(gpu, x.data(), on_gpu(gpu, contribution(n, world().rank())).data(), n);
  twice();
  nccl->all_reduce_sum(gpu, x.data(), n);
  twice();
  EXPECT_TRUE(is_sum(on_host(gpu, x, n), 4));
  EXPECT_TRUE(is_sum(on_host(gpu, y, n), 2));
}

// Kernels queued after the start of a sum run concurrently with it; finish_sums() waits for all
// sums that were started.
TEST_P(NcclTest, KernelsRunBesideStartedSums) {
  constexpr int64_t n = 5000, half = 2500;
  Exec exec = exec_of(gpu);
  const Scratch<float> x = on_gpu(gpu, contribution(n, world().rank())), y(n, Device::cuda),
                       after(n, Device::cuda);
  accumulate(gpu, x.data() + half, x.data() + half, half);
  nccl->start_sum(exec, x.data() + half, half);
  fill(gpu, y.data(), 3, n);
#ifndef RODIMUS_TEST_REAL_GPU
  if (GetParam().policy == fakecuda::Policy::lazy) {  // runs only what is waited for
    EXPECT_EQ(on_host(gpu, y, n), std::vector<float>(n, 3));
    EXPECT_EQ(cudaStreamQuery(gpu.stream), cudaSuccess);
    EXPECT_GT(fakecuda::unfinished(), 0u);  // the sum
  }
#endif
  accumulate(gpu, x.data(), x.data(), half);
  nccl->start_sum(exec, x.data(), half);
  nccl->finish_sums(exec);
  convert(gpu, after.data(), x.data(), n);
  EXPECT_TRUE(is_sum(on_host(gpu, after, n), 2));
}

// The memory returns to the pool of the compute stream while the sum is still queued.
TEST_P(NcclTest, MemoryMayBeLetGoBehindTheCall) {
  constexpr int64_t n = 3000;
  const Scratch<float> result(n, Device::cuda);
  {
    const Scratch<float> x = on_gpu(gpu, contribution(n, world().rank()));
    nccl->all_reduce_sum(gpu, x.data(), n);
    convert(gpu, result.data(), x.data(), n);
  }
  EXPECT_TRUE(is_sum(on_host(gpu, result, n), 1));
}

TEST_P(NcclTest, HostValuesGoThroughTheControl) {
  const int ranks = world().world_size();
  const Scratch<float> x = on_gpu(gpu, contribution(100, world().rank()));
  nccl->all_reduce_sum(gpu, x.data(), 100);
  double sum = 0.5;
  nccl->all_reduce_sum(std::span<double>(&sum, 1));
  EXPECT_EQ(sum, 0.5 * ranks);
  int64_t largest = world().rank();
  nccl->all_reduce_max(std::span<int64_t>(&largest, 1));
  EXPECT_EQ(largest, ranks - 1);
  EXPECT_EQ(broadcast_text(*nccl, concat("from ", world().rank()), ranks - 1),
            concat("from ", ranks - 1));
  Cpu cpu;
  std::vector<float> host(3, 1.0f);
  nccl->all_reduce_sum(cpu, host.data(), 3);
  EXPECT_EQ(host, std::vector<float>(3, static_cast<float>(ranks)));
  nccl->barrier();
}

// When a host collective runs, the sums are done.
TEST_P(NcclTest, HostCollectivesWaitForTheSums) {
  const Scratch<float> x = on_gpu(gpu, contribution(100, world().rank()));
  nccl->all_reduce_sum(gpu, x.data(), 100);
  nccl->barrier();
  EXPECT_EQ(cudaStreamQuery(gpu.stream), cudaSuccess);
}

// Sums over a group and over the world in turn, on the GPU of this rank. Small integers, so every
// order of summation gives the same result.
TEST_P(NcclTest, GroupsSumAmongThemselves) {
  constexpr int64_t n = 100;
  const int parity = world().rank() % 2;
  auto group = nccl->split(parity, -world().rank());
  EXPECT_EQ(group->world_size(), (world().world_size() + 1 - parity) / 2);
  EXPECT_EQ(group->rank(), group->world_size() - 1 - world().rank() / 2);
  float of_group = 0, of_world = 0;
  for (int rank = 0; rank < world().world_size(); ++rank) {
    const auto own = static_cast<float>(rank + 1);
    of_world += own;
    if (rank % 2 == parity) of_group += own;
  }
  const auto own = static_cast<float>(world().rank() + 1);
  const Scratch<float> x(n, Device::cuda), y(n, Device::cuda);
  fill(gpu, x.data(), own, n);
  fill(gpu, y.data(), own, n);
  group->all_reduce_sum(gpu, x.data(), n);
  accumulate(gpu, x.data(), x.data(), n);
  nccl->all_reduce_sum(gpu, y.data(), n);
  EXPECT_EQ(on_host(gpu, x, n), std::vector<float>(n, 2 * of_group));
  EXPECT_EQ(on_host(gpu, y, n), std::vector<float>(n, of_world));
  double sum = 1;
  group->all_reduce_sum(std::span<double>(&sum, 1));
  EXPECT_EQ(sum, group->world_size());
  // The group has its own control, so it may outlive the parent.
  nccl.reset();
  group->all_reduce_sum(gpu, y.data(), n);
  EXPECT_EQ(on_host(gpu, y, n), std::vector<float>(n, of_world * sum));
}

TEST_P(NcclTest, RefusesMemoryOfAnotherGpu) {
  Cuda other = gpu;
  ++other.device;
  EXPECT_THROW(nccl->all_reduce_sum(other, nullptr, 1), Error);
}

}  // namespace
}  // namespace rodimus
