// Runs on 1, 2 and 3 ranks. Each rank recomputes the expected values from the contributions of all
// ranks, so no rank trusts another.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "dist/bucketed_sum.h"
#include "tests/support/failure_of.h"
#include "tests/support/mpi_main.h"

namespace rodimus {
namespace {

using testing::failure_of;
using testing::world;

// The contribution of `rank`. Magnitudes vary widely, so another order of the sum gives other bits.
std::vector<float> contribution(int64_t n, int rank) {
  std::vector<float> x(static_cast<size_t>(n));
  uint64_t state = 77 + static_cast<uint64_t>(rank);
  for (float& value : x) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const auto mantissa = static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f;
    value = std::ldexp(mantissa, static_cast<int>(state >> 20 & 15));
  }
  return x;
}

std::vector<float> sum_in_rank_order(int64_t n, int world_size) {
  std::vector<float> sum = contribution(n, 0);
  for (int rank = 1; rank < world_size; ++rank) {
    const std::vector<float> x = contribution(n, rank);
    for (size_t i = 0; i < x.size(); ++i) sum[i] += x[i];
  }
  return sum;
}

// Sizes around the share (a cache line per rank), the block and the chunk (1M floats).
TEST(AllReduceSum, IsTheSumInRankOrderToTheBit) {
  for (const int64_t n : {0, 1, 15, 16, 17, 33, 1023, 5000, 100003, 3 * 1048576 + 7}) {
    for (const int threads : {1, 2}) {
      Exec exec = Cpu{threads};
      std::vector<float> x = contribution(n, world().rank());
      world().all_reduce_sum(exec, x.data(), n);
      EXPECT_EQ(x, sum_in_rank_order(n, world().world_size())) << "n = " << n;
    }
  }
}

TEST(AllReduceSum, DoesNotDependOnHowTheArrayIsCut) {
  constexpr int64_t n = 10007;
  Exec exec = Cpu{1};
  std::vector<float> whole = contribution(n, world().rank()), cut = whole;
  world().all_reduce_sum(exec, whole.data(), n);
  for (int64_t begin = 0; begin < n; begin += 777) {
    world().all_reduce_sum(exec, cut.data() + begin, std::min<int64_t>(777, n - begin));
  }
  EXPECT_EQ(std::memcmp(whole.data(), cut.data(), n * sizeof(float)), 0);
}

// On CPUs a sum completes when it is started, so the array shows which sums were started.
TEST(BucketedSum, SumsWhatIsFinalBucketByBucket) {
  constexpr int64_t n = 10007;
  Exec exec = Cpu{1};
  const std::vector<float> own = contribution(n, world().rank());
  std::vector<float> whole = own, x = own;
  world().all_reduce_sum(exec, whole.data(), n);
  const auto summed_from = [&](int64_t begin) {
    return std::memcmp(x.data(), own.data(), static_cast<size_t>(begin) * sizeof(float)) == 0 &&
           std::memcmp(x.data() + begin, whole.data() + begin,
                       static_cast<size_t>(n - begin) * sizeof(float)) == 0;
  };
  BucketedSum sum(world(), exec, x.data(), n, /*bucket=*/1000);
  sum.final_from(9500);
  EXPECT_TRUE(summed_from(n));
  sum.final_from(9007);
  EXPECT_TRUE(summed_from(9007));
  sum.final_from(9007);
  sum.final_from(8008);
  EXPECT_TRUE(summed_from(9007));
  sum.final_from(3000);
  EXPECT_TRUE(summed_from(3000));
  EXPECT_THROW(sum.final_from(3001), Error);
  EXPECT_THROW(sum.final_from(-1), Error);
  sum.finish();
  EXPECT_TRUE(summed_from(0));
}

// With one rank there is nothing to add; more ranks need NCCL.
TEST(AllReduceSum, OfGpuMemoryIsRefused) {
  Cuda gpu;
  const std::string got = failure_of([&] { world().all_reduce_sum(gpu, nullptr, 1); });
  EXPECT_EQ(got.find("NCCL") != std::string::npos, world().world_size() > 1) << got;
}

TEST(AllReduceSum, Doubles) {
  const int ranks = world().world_size();
  std::vector<double> x = {1e300, 1.0 * world().rank(), 1e-3};
  std::vector<double> want = {0, 0, 0};
  for (int rank = 0; rank < ranks; ++rank) {
    want[0] += 1e300;
    want[1] += rank;
    want[2] += 1e-3;
  }
  world().all_reduce_sum(x);
  EXPECT_EQ(x, want);
}

TEST(AllReduceMax, TakesTheLargestOfEachElement) {
  const int rank = world().rank(), ranks = world().world_size();
  std::vector<int64_t> x = {rank, -rank, INT64_MIN, rank == ranks - 1 ? INT64_MAX : 0};
  world().all_reduce_max(x);
  EXPECT_EQ(x, (std::vector<int64_t>{ranks - 1, 0, INT64_MIN, INT64_MAX}));
}

TEST(Broadcast, EveryRootEveryLength) {
  for (int root = 0; root < world().world_size(); ++root) {
    for (const size_t length : {size_t{0}, size_t{1}, size_t{70000}}) {
      const std::string want(length, static_cast<char>('a' + root));
      const std::string mine = world().rank() == root ? want : "something else";
      EXPECT_EQ(broadcast_text(world(), mine, root), want);
    }
  }
  EXPECT_THROW(world().broadcast({}, world().world_size()), Error);
}

TEST(Together, NobodyThrows) {
  int runs = 0;
  together(world(), [&] { ++runs; });
  EXPECT_EQ(runs, 1);
}

TEST(Together, OneRankThrowsAndAllRanksGetItsMessage) {
  const int ranks = world().world_size();
  for (int bad = 0; bad < ranks; ++bad) {
    const std::string got = failure_of([&] {
      together(world(), [&] {
        if (world().rank() == bad) fail("shard 7 is missing");
      });
    });
    EXPECT_EQ(got,
              ranks == 1 ? "shard 7 is missing" : concat("rank ", bad, ": shard 7 is missing"));
  }
}

TEST(Together, TheLowestFailingRankSpeaks) {
  const std::string got =
      failure_of([&] { together(world(), [&] { fail("message of ", world().rank()); }); });
  EXPECT_EQ(got, world().world_size() == 1 ? "message of 0" : "rank 0: message of 0");
  if (world().world_size() < 3) return;
  const std::string later = failure_of([&] {
    together(world(), [&] {
      if (world().rank() > 0) fail("message of ", world().rank());
    });
  });
  EXPECT_EQ(later, "rank 1: message of 1");
}

TEST(Together, AlikeFailuresAreNotBlamedOnARank) {
  EXPECT_EQ(failure_of([&] { together(world(), [] { fail("unknown key 'lrr'"); }); }),
            "unknown key 'lrr'");
}

TEST(RequireIdentical, NamesTheRanksThatDiffer) {
  const int ranks = world().world_size();
  require_identical(world(), 42, "config");
  if (ranks == 1) return;
  const uint64_t last_differs = world().rank() == ranks - 1 ? 1 : 0;
  EXPECT_EQ(failure_of([&] { require_identical(world(), last_differs, "config"); }),
            concat("config: rank ", ranks - 1,
                   " differs from rank 0; all ranks must be given the same config"));
  const auto own = static_cast<uint64_t>(world().rank());
  EXPECT_EQ(failure_of([&] { require_identical(world(), own, "data"); }),
            ranks == 2 ? "data: rank 1 differs from rank 0; all ranks must be given the same data"
                       : "data: ranks 1, 2 differ from rank 0; all ranks must be given the same "
                         "data");
}

TEST(Mpi, RefusesOtherThreads) {
  std::string got;
  std::thread([&] { got = failure_of([] { world().barrier(); }); }).join();
  EXPECT_NE(got.find("another thread"), std::string::npos) << got;
  world().barrier();
}

// A receiver expects fewer bytes than the root sends: MPI reports a truncated message. Only with
// two ranks, because the failed rank would not forward the message.
TEST(Mpi, ErrorsOfTheLibraryBecomeError) {
  if (world().world_size() != 2) return;
  std::vector<std::byte> bytes(world().rank() == 0 ? 64 : 8);
  const std::string got = failure_of([&] { world().broadcast(bytes, 0); });
  EXPECT_EQ(got.find(world().rank() == 0 ? "nothing was thrown" : "MPI_Bcast: MPI_ERR_TRUNCATE"),
            0u)
      << got;
  world().barrier();
}

TEST(Mpi, IsLaunchedByMpiUnderMpirun) { EXPECT_TRUE(launched_by_mpi()); }

}  // namespace
}  // namespace rodimus
