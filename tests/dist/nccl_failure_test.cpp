// What the NCCL communicator does when something fails: the fakes of tests/fakecuda make it fail.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <string>
#include <utility>

#include "kernels/convert.h"
#include "tests/dist/nccl_fixture.h"
#include "tests/fakecuda/nccl.h"
#include "tests/support/failure_of.h"

namespace rodimus {
namespace {

using namespace testing;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

INSTANTIATE_TEST_SUITE_P(Under, NcclTest, conditions(), name_of_condition);

TEST_P(NcclTest, SaysWhatFailedWhereAndWhatToDo) {
  fakecuda::fail_next("ncclAllReduce", ncclSystemError, "no route to 10.0.0.7");
  const Scratch<float> x = on_gpu(gpu, contribution(8, world().rank()));
  const std::string got = failure_of([&] { nccl->all_reduce_sum(gpu, x.data(), 8); });
  EXPECT_EQ(got, concat("NCCL on rank ", world().rank(), " of ", world().world_size(), " (GPU ",
                        gpu.device,
                        "): ncclAllReduce: unhandled system error: no route to 10.0.0.7; "
                        "NCCL_DEBUG=INFO in the environment shows the details, "
                        "NCCL_SOCKET_IFNAME selects the network to use"));
}

// Another rank exits; this one waits for a sum that never ends and learns of it from NCCL,
// whichever host collective comes first.
TEST_P(NcclTest, ASumWhoseRankLeftIsAnErrorAndNotAHang) {
  const Scratch<float> x = on_gpu(gpu, contribution(8, world().rank()));
  fakecuda::lose_rank("connection closed by rank 1");
  nccl->all_reduce_sum(gpu, x.data(), 8);
  double sum = 0;
  int64_t largest = 0;
  std::byte byte{};
  float value = 0;
  Cpu cpu;
  const std::function<void()> collectives[] = {
      [&] { nccl->barrier(); },
      [&] { nccl->all_reduce_sum(std::span(&sum, 1)); },
      [&] { nccl->all_reduce_max(std::span(&largest, 1)); },
      [&] { nccl->broadcast(std::span(&byte, 1), 0); },
      [&] { nccl->all_reduce_sum(cpu, &value, 1); },
  };
  for (const auto& collective : collectives) {
    const std::string got = failure_of(collective);
    EXPECT_TRUE(contains(got, "a sum over the ranks: remote process exited")) << got;
    EXPECT_TRUE(contains(got, "connection closed by rank 1")) << got;
  }
  nccl.reset();  // aborts: what waited for the sum continues
  wait(gpu);
}

// NCCL allocates at the first sum: it must come at the start, and not when memory is short.
TEST_P(NcclTest, IsWarmWhenItIsMade) {
  const std::vector<std::string> making = {"ncclCommInitRank", "ncclAllReduce"};
  nccl.reset();
  unsetenv("NCCL_RUNTIME_CONNECT");
  (void)fakecuda::take_calls();
  nccl = make_nccl(world(), gpu);
  EXPECT_EQ(std::string(std::getenv("NCCL_RUNTIME_CONNECT")), "0");
  std::vector<std::string> calls = fakecuda::take_calls();
  if (world().rank() == 0) {
    EXPECT_EQ(calls.front(), "ncclGetUniqueId");
    calls.erase(calls.begin());
  }
  EXPECT_EQ(calls, making);
  EXPECT_EQ(fakecuda::unfinished(), 0u);

  const std::unique_ptr<Communicator> group = nccl->split(0, 0);
  calls = fakecuda::take_calls();
  calls.erase(calls.begin(), calls.end() - 2);
  EXPECT_EQ(calls, making);

  // On every rank, so that none waits for the others.
  fakecuda::fail_next("ncclAllReduce", ncclSystemError, "out of memory");
  const std::string got = failure_of([&] { (void)nccl->split(0, 0); });
  EXPECT_TRUE(contains(got, "ncclAllReduce: unhandled system error: out of memory")) << got;
}

TEST_P(NcclTest, FailuresOfGroups) {
  const int last = world().world_size() - 1;
  const std::string color =
      failure_of([&] { (void)nccl->split(world().rank() == last ? -1 : 0, 0); });
  EXPECT_TRUE(contains(color, "split: color = -1, expected 0 or more")) << color;

  // NCCL fails to make a group; the parent communicator keeps working.
  fakecuda::fail_next("ncclCommInitRank", ncclSystemError, "/dev/shm is full");
  const std::string no_comm = failure_of([&] { (void)nccl->split(world().rank(), 0); });
  EXPECT_TRUE(contains(no_comm, "NCCL on rank 0 of 1")) << no_comm;
  EXPECT_TRUE(contains(no_comm, "ncclCommInitRank: unhandled system error: /dev/shm is full"))
      << no_comm;
  const Scratch<float> x = on_gpu(gpu, contribution(8, world().rank()));
  nccl->all_reduce_sum(gpu, x.data(), 8);
  EXPECT_TRUE(is_sum(on_host(gpu, x, 8), 1));

  // A sum whose rank has left also ends a split with an Error.
  fakecuda::lose_rank("connection closed by rank 1");
  nccl->all_reduce_sum(gpu, x.data(), 8);
  const std::string gone = failure_of([&] { (void)nccl->split(0, 0); });
  EXPECT_TRUE(contains(gone, "connection closed by rank 1")) << gone;
  nccl.reset();
  wait(gpu);
}

// A single rank throws: its communicator must not wait for the others, whose sums never come.
TEST_P(NcclTest, ARankThatThrowsLeavesAtOnce) {
  const Scratch<float> x = on_gpu(gpu, contribution(8, world().rank()));
  const std::string got = failure_of([&] {
    const std::unique_ptr<Communicator> leaving = std::move(nccl);
    fakecuda::lose_rank("");
    leaving->all_reduce_sum(gpu, x.data(), 8);
    fail("the disk is full");
  });
  EXPECT_EQ(got, "the disk is full");
  wait(gpu);
}

TEST_P(NcclTest, FailuresAtTheStart) {
  const int last = world().world_size() - 1;
  nccl.reset();
  unsetenv("NCCL_NVLS_ENABLE");

  // The id comes from rank 0; all ranks learn why there is none.
  if (world().rank() == 0) {
    fakecuda::fail_next("ncclGetUniqueId", ncclSystemError, "no network interface");
  }
  const std::string no_id = failure_of([&] { (void)make_nccl(world(), gpu); });
  EXPECT_TRUE(contains(no_id, "ncclGetUniqueId: unhandled system error: no network interface"))
      << no_id;
  EXPECT_NE(std::getenv("NCCL_NVLS_ENABLE"), nullptr)
      << "set before the first call that may read it";

  // On every rank: one alone would leave the others waiting, here as with NCCL.
  fakecuda::fail_next("ncclCommInitRank", ncclSystemError, "/dev/shm is full");
  const std::string no_comm = failure_of([&] { (void)make_nccl(world(), gpu); });
  EXPECT_TRUE(contains(no_comm, "ncclCommInitRank: unhandled system error: /dev/shm is full"))
      << no_comm;

  // The last rank sees no GPU.
  fakecuda::set_gpus(0, world().rank() == last ? 0 : world().local_size());
  const std::string no_gpu =
      failure_of([&] { together(world(), [&] { (void)open_gpu(world()); }); });
  EXPECT_TRUE(contains(no_gpu, "no GPU: the driver shows no GPU")) << no_gpu;
  EXPECT_EQ(contains(no_gpu, concat("rank ", last, ": ")), last > 0) << no_gpu;

  // All ranks see the same GPU under their local_rank.
  fakecuda::set_gpus(7 - world().local_rank(), world().local_size());
  if (last == 0) return;
  EXPECT_EQ(failure_of([&] { (void)make_nccl(world(), gpu); }),
            "ranks 0 and 1 have the same GPU; start at most one rank per GPU of a machine (mpirun "
            "-n, or -N for each machine), or give each rank its own by CUDA_VISIBLE_DEVICES");
}

// Shows that the order tests can fail: without either of the waits in all_reduce_sum, what is read
// after the sum is wrong for some seed.
TEST(NcclWaits, AreBothNeeded) {
  constexpr int64_t n = 1000;
  fakecuda::set_gpus(0, world().local_size());
  Cuda gpu = open_gpu(world());
  const auto right_without = [&](int wait_number, uint64_t seed) {
    fakecuda::set_policy(fakecuda::Policy::lazy, seed);
    const std::unique_ptr<Communicator> nccl = make_nccl(world(), gpu);
    const Scratch<float> x = on_gpu(gpu, contribution(n, world().rank())), y(n, Device::cuda);
    accumulate(gpu, x.data(), x.data(), n);
    fakecuda::ignore_wait(wait_number);
    nccl->all_reduce_sum(gpu, x.data(), n);
    convert(gpu, y.data(), x.data(), n);
    const bool right = is_sum(on_host(gpu, y, n), 2);
    nccl->barrier();
    return right;
  };
  int64_t right[3] = {0, 0, 0};
  constexpr uint64_t kSeeds = 6;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (int wait_number = 0; wait_number < 3; ++wait_number) {
      right[wait_number] += right_without(wait_number, seed);
    }
  }
  EXPECT_EQ(right[0], kSeeds);  // with both waits every seed is right
  // The fake's sum on one rank changes nothing, so its place does not matter.
  EXPECT_EQ(right[1] == kSeeds, world().world_size() == 1);
  EXPECT_EQ(right[2] == kSeeds, world().world_size() == 1);
  simt::clear_reports();
}

// Not part of the normal test run, because it ends the job. See CMakeLists.txt.
TEST(NcclAbort, DISABLED_EndsTheOtherRanks) {
  fakecuda::set_gpus(0, world().local_size());
  Cuda gpu = open_gpu(world());
  const std::unique_ptr<Communicator> nccl = make_nccl(world(), gpu);
  const Scratch<float> x = on_gpu(gpu, contribution(8, world().rank()));
  if (world().rank() == 1) nccl->abort(7);
  nccl->all_reduce_sum(gpu, x.data(), 8);
  nccl->barrier();
  FAIL() << "a sum without rank 1";
}

}  // namespace
}  // namespace rodimus
